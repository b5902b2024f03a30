"""Tests of models without data: copies, inputs, fingerprints."""
