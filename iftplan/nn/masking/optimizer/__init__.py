"""The optimizer under masks: hooks around its step, its state, and wrappers of engines."""
