"""The networks, their layers, and inference with a trained model."""
