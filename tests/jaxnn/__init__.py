"""Tests of plans on JAX models."""
