"""Data sets and how batches are drawn from them."""
