"""Tests of training under masks."""
