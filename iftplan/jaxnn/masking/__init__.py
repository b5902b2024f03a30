"""Masks as pytrees beside ordinary parameters, and an Optax transformation that trains under them."""
