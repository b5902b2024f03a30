"""Which weights the optimizer moves: the masked ones, or dense ones behind them."""
