"""Training of a plan on several devices: what each of them holds, and what they send each other."""
