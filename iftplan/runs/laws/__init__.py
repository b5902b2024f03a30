"""Published laws of how loss falls with size, data, sparsity and experts: one law a file, and fits of them to runs."""
