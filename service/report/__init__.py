"""A table of scores as one HTML file for people: it opens from disk and loads nothing from a network."""
