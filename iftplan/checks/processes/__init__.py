"""Measuring models in processes of their own: what they read on the way, and answers kept while that holds."""
