"""Reference architectures that can be named without bringing any code."""
