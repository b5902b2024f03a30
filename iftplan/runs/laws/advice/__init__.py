"""What laws answer for people: values, tables and documents."""
