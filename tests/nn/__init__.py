"""Tests of everything that works on PyTorch's modules."""
