"""Tests of masked models on their way out."""
