"""The command line `misfit`."""
