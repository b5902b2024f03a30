"""Search: how many masks families offer at equal MACs, and which family serves an objective best."""
