"""Pixels in and out: image files, arrays and archives become rows, and rows become pictures."""
