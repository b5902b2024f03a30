"""Output shapes and costs of gradients, operator by operator."""
