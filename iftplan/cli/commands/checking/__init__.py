"""Commands that measure what a plan or a project promises."""
