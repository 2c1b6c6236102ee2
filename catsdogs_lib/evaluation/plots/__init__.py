"""Figures: charts, galleries and their common style."""
