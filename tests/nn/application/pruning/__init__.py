"""Tests of one-shot pruning."""
