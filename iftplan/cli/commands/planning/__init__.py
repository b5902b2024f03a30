"""Commands that solve, plan and read models."""
