"""Evaluation of a trained model: reconstruction, disentanglement, and a diagnosis in words."""
