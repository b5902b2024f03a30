"""What every room stands on: errors, numbers as people read them, documents, arguments and their validation."""
