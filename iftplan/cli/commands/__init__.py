"""One file or folder a command, by what it is for; what `iftplan --help` says of each stands here, so that nothing is imported to say it."""

from collections.abc import Mapping
from types import MappingProxyType

SUMMARIES: Mapping[str, str] = MappingProxyType(
    {
        "solve": "Solve the iso-FLOP equation of each family for a layer",
        "plan": "Make a network sparse and spend the saved compute, at equal MACs",
        "audit": "Measure a plan or a model and compare it with its target cost",
        "check": "Check a project's models against their budgets and baseline",
        "diff": "Show what changed between two models, plans or git revisions",
        "train": "Train a plan with a sparse-training method",
        "prune": "Make a trained network sparse in one shot",
        "soup": "Average the weights of runs that share their masks",
        "explore": "Try plans of a model in one offline page with sliders",
        "sweep": "Plan, and optionally train, many combinations into one table",
        "pareto": "Compare plans, runs and published results on a cost–quality plot",
        "plot": "Draw one figure of a plan, a layer, a model or runs",
        "paper": "Print the Sparse-IFT paper's tables beside iftplan's own numbers",
        "advise": "Ask scaling laws for the best sparsity or number of experts",
        "bench": "Time planned layers against the dense ones on this machine",
        "spec": "Save a model's layers, MACs and coupled widths as JSON",
        "models": "List the bundled models and the other ways to name one",
    }
)
"""Name → first sentence of the command's docstring, in the order of the list."""

MODULES: Mapping[str, str] = MappingProxyType(
    {
        **{name: f"planning.{name}" for name in ("solve", "plan", "explore", "advise", "spec", "models")},
        "audit": "checking.audit.command",
        **{name: f"checking.{name}" for name in ("check", "diff")},
        **{name: f"results.{name}" for name in ("pareto", "plot")},
        "paper": "results.paper.command",
        "train": "training.train.command",
        "prune": "training.prune.command",
        "soup": "training.soup",
        "sweep": "training.sweep.command",
        "bench": "training.bench.command",
    }
)
"""Name → module below this package that has its `command` and `EXAMPLE`."""
