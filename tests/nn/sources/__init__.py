"""Tests of where models come from, and of the bundled ones."""
