"""The Sparse-IFT families, one per file."""
