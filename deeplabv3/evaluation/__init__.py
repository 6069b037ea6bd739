"""Scores: pixel counts and what follows from them."""
