"""Plans applied to networks: their structure, masks, weights and scales, and what came of it."""
