"""Costs of operators: formulas, operators that are free, and costs that a user vouches for."""
