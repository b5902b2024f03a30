"""`iftplan train`: its options, the plan of a run, and the run on a terminal."""
