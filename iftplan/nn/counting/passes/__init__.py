"""One pass of a model: under which conditions it runs, on what data, and who listens."""
