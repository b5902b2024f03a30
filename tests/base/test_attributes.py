"""Names that a package does not have are met with the nearest that it has."""

from __future__ import annotations

from types import ModuleType

import pytest

import iftplan as ift
from iftplan import nn


@pytest.mark.parametrize(
    ("package", "name", "meant"),
    [
        (nn, "rigl", "RigL"),
        (nn, "Set", "SET"),
        (nn, "topkast", "TopKAST"),
        (nn, "measure_aplied", "measure_applied"),
        (ift, "Plan", "plan"),
        (ift, "readmodel", "read_model"),
    ],
)
def test_a_wrong_name_is_met_with_the_nearest(package: ModuleType, name: str, meant: str) -> None:
    with pytest.raises(AttributeError, match=rf"attribute {name}\. Did you mean '{meant}'\?"):
        getattr(package, name)


def test_what_is_like_nothing_is_refused_as_ever() -> None:
    with pytest.raises(AttributeError) as refused:
        _ = ift.zzz  # type: ignore[attr-defined]
    assert "Did you mean" not in str(refused.value)
    assert not hasattr(nn, "__wrapped__")
