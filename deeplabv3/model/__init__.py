"""The network, its weights and its checkpoint."""
