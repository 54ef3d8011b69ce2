"""HTTP: bodies to requests, answers to responses."""
