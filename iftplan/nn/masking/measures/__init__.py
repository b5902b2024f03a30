"""Measures of masks in training: exploration and spectra."""
