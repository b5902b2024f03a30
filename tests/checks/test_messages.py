"""Messages in the words of a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from iftplan.checks.configuration_file import read_config
from iftplan.checks.messages import in_configuration


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("such as `inputs='1x8:int64'`.", 'such as inputs = ["1x8:int64"].'),
        ("write `inputs=['b.image=2x8', 'b.ids=2x4:int64']`", 'write inputs = ["b.image=2x8", "b.ids=2x4:int64"]'),
        ("name it: `model='net.py:net'` (or `trust=True`).", 'name it: model = "net.py:net".'),
        ("with `allow=['my::op=0']`", 'with allow = [{operator = "my::op", macs = "0", reason = "…"}]'),
        ("`nonzeros=True` counts those that the masks keep", "nonzeros = true counts those that the masks keep"),
        ("keep `keep_dense=['fc']` and `inputs=…`", "keep `keep_dense=['fc']` and `inputs=…`"),
    ],
)  # fmt: skip
def test_arguments_become_keys(text: str, told: str) -> None:
    assert in_configuration(text) == told


def test_what_is_advised_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "iftplan.toml"
    advised = (
        "`inputs=['b.image=2x8', 'b.ids=2x4:int64']`",
        "`allow=['my::op=64*out']`",
    )
    keys = "\n".join(map(in_configuration, advised))
    file.write_text(f'[models.net]\nsource = "net.py:net"\n{keys}\n', encoding="utf-8")
    model = read_config(file).models[0]
    assert [str(given) for given in model.inputs] == ["b.image=2x8", "b.ids=2x4:int64"]
    assert (model.allowed[0].name, model.allowed[0].macs) == ("my::op", "64*out")
