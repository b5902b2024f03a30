"""What is measured of masks and weights."""
