"""What layers and plans take on a machine: timings, profiles, prices, and plans for time."""
