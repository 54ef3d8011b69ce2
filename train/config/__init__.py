"""What a training run is made of: presets, their parts, and overrides from the command line."""
