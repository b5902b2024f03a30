"""Tests of dynamic sparsity as values and arithmetic."""
