"""Exchange of weights: counts stay, and every so often some active weights make room for others."""
