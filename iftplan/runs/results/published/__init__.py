"""What papers report, as data, and as observations beside one's own runs."""
