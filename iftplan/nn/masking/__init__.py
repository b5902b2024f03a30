"""Sparse training: algorithms as frozen values, one file each, and the object that runs them in any loop."""
