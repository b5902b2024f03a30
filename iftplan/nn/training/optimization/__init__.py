"""How a run's weights move: its optimizer, LAMB, and averages of the weights."""
