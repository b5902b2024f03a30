"""How shapes follow from shapes, and what gradients cost, operator by operator."""
