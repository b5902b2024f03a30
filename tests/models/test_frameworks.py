"""Which framework a factory belongs to, read from what it imports without running it."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from iftplan.models.frameworks import framework_of

FILES = {
    "both.py": """
        import jax, torch, jax.numpy as jnp
        from flax import linen
        from torch import nn
        from nets import tower

        WIDTH = 4

        def in_jax():
            return linen.Dense(WIDTH), jax.nn.relu(jnp.ones((2, 8)))

        def in_torch():
            return nn.Linear(8, WIDTH)

        def inside():
            from flax import nnx
            return nnx.Linear(8, 4, rngs=nnx.Rngs(0))

        def through_a_neighbour():
            return tower()

        through_a_name = in_jax
    """,
    "nets.py": """
        try:
            from flax import nnx
        except ImportError:
            nnx = None
        import pieces.blocks as blocks

        def tower():
            return blocks.block()
    """,
    "pieces/__init__.py": "",
    "pieces/blocks.py": """
        from . import layers

        def block():
            return layers.make()
    """,
    "pieces/layers.py": """
        from equinox import nn

        def make():
            return nn.Linear(8, 4, key=None)
    """,
    "configured.py": """
        from flax import nnx
        from transformers import BertConfig

        def build():
            return nnx.Linear(BertConfig().hidden_size, 4, rngs=nnx.Rngs(0))
    """,
    "plain.py": "def build():\n    raise SystemExit('a factory that is not to run')",
    "broken.py": "import jax\ndef build(:",
}


@pytest.mark.parametrize(
    ("source", "framework"),
    [
        ("both.py:in_jax", "jax"),
        ("both.py:in_torch", "torch"),
        ("both.py:inside", "jax"),
        ("both.py:through_a_neighbour", "jax"),
        ("both.py:through_a_name", "jax"),
        ("nets:tower", "jax"),
        ("pieces.blocks:block", "jax"),
        ("both.py:absent", "torch"),  # all of the file: it imports both
        ("configured.py:build", "jax"),  # the configuration alone is of another library
        ("plain.py:build", "torch"),
        ("broken.py:build", "torch"),
        ("nowhere.py:build", "torch"),
        ("no.such.module:build", "torch"),
        ("zoo:resnet18", "torch"),
        ("hf:config.json", "torch"),
        ("not a source", "torch"),
    ],
)
def test_the_framework_is_what_the_factory_reaches(
    source: str, framework: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(dedent(text))
    monkeypatch.chdir(tmp_path)
    assert framework_of(source) == framework
