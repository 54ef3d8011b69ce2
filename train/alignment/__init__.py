"""Alignment of latents whose sign depends on the context: an algorithm on a trained model, without labels."""
