"""Answers kept from one command to the next, for as long as everything that they were made of is as it was."""
