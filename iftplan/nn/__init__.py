"""The only part of iftplan that imports torch."""
