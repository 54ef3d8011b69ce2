"""From scores to decisions: calibrated probabilities, and groups of images that are alike."""
