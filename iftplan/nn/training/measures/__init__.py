"""What data show of a network: its score, and zeros among its activations."""
