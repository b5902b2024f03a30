"""Ten networks in JAX, each with its twin in PyTorch: bundled with iftplan, of transformers, or written beside it."""
