"""`iftplan sweep`: what is swept, planned, trained and written."""
