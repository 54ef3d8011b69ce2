"""Learning: a folder of photographs becomes a bundle, by a pretrained backbone and statistics. No torch."""
