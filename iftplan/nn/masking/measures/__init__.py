"""What can be said of the masks of a network in training: how many were seen, and their spectra."""
