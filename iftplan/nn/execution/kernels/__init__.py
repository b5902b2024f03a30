"""Compiled kernels: what they are made of, what they walk over, and how they are called."""
