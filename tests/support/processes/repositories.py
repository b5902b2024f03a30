"""A repository of somebody's own, to check in: a model, its budget, a branch that widens it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

NET = """from torch import nn

HIDDEN = 32


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(16, HIDDEN)
        self.head = nn.Linear(HIDDEN, 4)

    def forward(self, x):
        return self.head(self.stem(x).relu())
"""

CONFIG = """[models.small]
source = "net.py:Small"
inputs = ["1x16"]
budget.macs = 700
"""
BEFORE = 16 * 32 + 32 * 4
AFTER = 16 * 48 + 48 * 4


def git(folder: Path, *arguments: str) -> str:
    """Run git without anybody's configuration."""
    own = {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        **{
            f"GIT_{who}_{what}": "a@b.example"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
    }
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=os.environ | own, capture_output=True, text=True, check=True
    )
    return done.stdout


def repository(folder: Path, *, widened: bool = False) -> Path:
    """A commit on main with the model and its budget; then a branch, perhaps with the hidden layer widened."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net.py").write_text(NET)
    (folder / "iftplan.toml").write_text(CONFIG)
    (folder / ".gitignore").write_text(".iftplan_cache/\n__pycache__/\n")
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=A model and its budget")
    git(folder, "switch", "--quiet", "--create", "change")
    if widened:
        (folder / "net.py").write_text(NET.replace("HIDDEN = 32", "HIDDEN = 48"))
        git(folder, "commit", "--quiet", "--all", "--message=Widen it")
    return folder
