"""One page in which a model is planned by hand: sliders, and a planner that calculates as ours does."""
