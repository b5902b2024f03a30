"""The Python blocks of the pages about JAX run, one after the other, where JAX is."""

from __future__ import annotations

import re
from typing import Any

import pytest

pytest.importorskip("jax", reason="JAX, of the extra jax, is not installed")
pytest.importorskip("flax", reason="Flax, of the extra jax, is not installed")

from tests.support.places import page_named


@pytest.mark.parametrize("page", ["jax-training.md"])
def test_blocks_of_python_run(page: str) -> None:
    text = page_named(page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```\{code-block\} python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    assert blocks
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
