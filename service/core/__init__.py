"""The mathematics: arrays in, arrays out. No file, no request, no transport."""
