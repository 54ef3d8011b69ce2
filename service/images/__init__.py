"""Pixels in and out: image files, arrays and archives to rows, and pictures back."""
