"""Why an image is far off: attributions, minimal sets and a sentence."""
