"""Masks on tensors: drawn, chosen, checked and counted in every structure."""
