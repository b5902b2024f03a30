"""The only part of iftplan that imports torch: reading, building and measuring networks."""
