"""A plan as a document: its rows, its scales, its estimates, and whether they agree."""
