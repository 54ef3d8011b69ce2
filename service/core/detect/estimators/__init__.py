"""Estimators: what is normal among the images of a context, and how an image stands to it."""
