"""Tests of masks as tensors."""
