"""Which pairs of a query and a key attention computes, as values with exact counts."""
