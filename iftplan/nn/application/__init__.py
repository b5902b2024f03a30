"""Plans applied to networks: structure, masks, weights and scales, and audits of the result."""
