"""The configuration of a training run: presets, their parts, and overrides from the command line."""
