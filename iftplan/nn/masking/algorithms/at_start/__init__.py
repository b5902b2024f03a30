"""Pruning at the start: masks are chosen once, before weights are trained, and stay."""
