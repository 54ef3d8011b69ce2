"""Rows as pictures: PNG, contact sheets, heat maps, zips."""
