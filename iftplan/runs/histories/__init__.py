"""What happened over a run: its masks, their spectra and its loss, evaluation by evaluation."""
