"""Counts of JAX functions and modules, from their jaxprs."""
