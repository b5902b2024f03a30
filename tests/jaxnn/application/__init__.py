"""Tests of plans applied to JAX models."""
