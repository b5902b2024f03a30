"""Counting MACs: costs of operators, engines that count a forward pass, and rules for training steps."""
