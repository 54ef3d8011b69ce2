"""The use cases: score, explain, fit, edit, traverse, interpolate, sample, encode, decode."""
