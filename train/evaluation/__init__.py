"""Evaluation of a trained model: reconstruction, disentanglement, and what went wrong, in words."""
