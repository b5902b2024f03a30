"""`iftplan audit`: a plan or a model, measured and held against what it may cost."""
