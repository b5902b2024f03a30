"""Pruning over training: from many weights to the counts of the plan, step by step."""
