"""What a training run costs: MACs, bytes, and how much of a machine it uses."""
