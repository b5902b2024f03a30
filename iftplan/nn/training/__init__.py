"""Training runs: data, engine, loop, ledger and records; `iftplan train` is its command line."""
