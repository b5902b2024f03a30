"""The Sparse-IFT families: an equation each, its derivation and closed forms, and one layer solved in whole numbers."""
