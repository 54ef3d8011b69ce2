"""What is normal in a context, and how far off each image is."""
