"""Data sets known by name, and how they are fetched."""
