"""Networks that grow wider in the middle of training."""
