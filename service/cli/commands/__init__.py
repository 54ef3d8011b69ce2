"""The commands of `misfit`: a module for each, or for some that are alike, and what belongs to one of them."""
