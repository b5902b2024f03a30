"""A page as one HTML file, with the treemap that it draws."""
