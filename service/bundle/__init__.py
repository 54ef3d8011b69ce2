"""The model artefact: a directory that export writes, and that everything else loads and verifies."""
