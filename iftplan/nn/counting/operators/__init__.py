"""What every operator costs, which are free, and which a user vouches for."""
