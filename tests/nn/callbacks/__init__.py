"""Tests of masking under other libraries' trainers."""
