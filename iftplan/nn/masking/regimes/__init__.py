"""Where the weights are that an optimizer moves: masked ones themselves, or dense ones behind them."""
