"""DeepLab V3 for street scenes: train it, score it by the official rules, look at what it sees."""

__version__ = "0.1.0"
