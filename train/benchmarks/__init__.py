"""Benchmarks of a bundle: outliers, out-of-distribution images, counterfactuals and digits."""
