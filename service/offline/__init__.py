"""Scoring without a server: the use cases in this process, and tables of scores."""
