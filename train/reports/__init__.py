"""Tables, figures and pages of measured results."""
