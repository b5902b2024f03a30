"""Dense weights behind masked ones: every weight is trained, and forward passes see those that masks keep."""
