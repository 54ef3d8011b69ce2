"""Training objectives: losses, and their weights over the steps."""
