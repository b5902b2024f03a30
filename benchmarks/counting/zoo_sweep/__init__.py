"""The sweep of `benchmarks/counting/zoos.py`: what is swept, a process for each model, its journal and its table."""
