"""Models in JAX: what can be counted, and where it comes from."""
