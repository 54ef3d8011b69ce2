"""What the command line makes of its inputs: images, by where they are, and how each is read."""
