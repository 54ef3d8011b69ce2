"""The model artefact: a directory that export writes and the service loads and verifies."""
