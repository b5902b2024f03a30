"""What holds the program: a folder for each room of the package, and helpers in `support`."""
