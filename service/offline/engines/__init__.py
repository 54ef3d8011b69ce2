"""Scoring of many images in two passes: the steps, and who runs them."""
