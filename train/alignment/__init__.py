"""Align latents whose sense changes with the context: an algorithm on a trained model, without labels."""
