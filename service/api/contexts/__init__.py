"""Contexts as JSON: their models, what is checked of them, and how they become contexts of the core and back."""
