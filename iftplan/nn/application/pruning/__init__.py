"""One-shot pruning: which weights of a trained network stay, and what the others leave to those."""
