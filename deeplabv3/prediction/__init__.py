"""Predictions: from images to masks and pictures."""
