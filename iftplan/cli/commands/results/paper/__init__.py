"""`iftplan paper`: the Sparse-IFT paper, table by table."""
