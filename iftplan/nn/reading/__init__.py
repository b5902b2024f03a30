"""Networks read into specs: which layers they have, and which widths move together."""
