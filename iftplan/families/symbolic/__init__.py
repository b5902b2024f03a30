"""Closed forms in a layer's own channels, exactly and without SymPy: what the generated code gives on symbols."""
