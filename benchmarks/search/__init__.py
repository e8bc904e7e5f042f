"""Spaces whose every point is known, and searches compared on them."""
