"""Plans: what is asked of one, how it is made, and the value that holds it."""
