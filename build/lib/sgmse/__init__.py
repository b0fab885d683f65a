"""Noise-conditioned score-based speech enhancement."""
