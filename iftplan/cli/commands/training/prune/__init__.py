"""`iftplan prune`: what was asked for, the trained network, and what pruning leaves of its quality."""
