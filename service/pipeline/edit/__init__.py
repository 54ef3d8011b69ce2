"""Edits of latents: planned, drawn or shown by exemplars, and answered."""
