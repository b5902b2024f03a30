"""One file a command; what `iftplan --help` says of each stands here, so that nothing is imported to say it."""

from collections.abc import Mapping
from types import MappingProxyType

SUMMARIES: Mapping[str, str] = MappingProxyType(
    {
        "solve": "Solve the iso-FLOP equation of each family for one or more layers",
        "plan": "Plan a whole model at exactly equal MACs in one scope",
        "audit": "Measure a plan or a model, layer by layer",
        "check": "Check configured models against their budgets and their baseline",
        "diff": "Compare two ledgers, or two revisions, layer by layer, biggest contribution first",
        "train": "Train a plan",
        "explore": "Try plans of a model in one offline page with sliders",
        "sweep": "Plan every combination into one table",
        "pareto": "Hold plans, runs and published results against each other: what dominates, and what equal quality costs",
        "plot": "Draw one picture of what plans, layers and runs hold",
        "advise": "Say which sparsity the sparse scaling law (arXiv 2309.08520) finds best for a size and a compute",
        "bench": "Time planned layers against the original dense ones, in every backend that this machine has",
        "spec": "Read a model's layers, MACs and couplings into a document",
        "models": "List the bundled models and the other ways to name one",
    }
)
"""Name → first sentence of the command's docstring, in the order of the list."""
