"""Plan, check and train sparse iso-FLOP networks, exact to the MAC."""
