"""Tests of what `iftplan train` is made of."""
