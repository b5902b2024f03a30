"""A sample of `benchmarks/planning/fuzz.py`: hostile inputs of every kind through the command line, in this process."""

import pytest

from tests.support.programs import program

pytest.importorskip("torch")
fuzz = program("fuzz")


def test_hostile_inputs_are_refused_with_a_sentence_or_answered() -> None:
    worst: list[object] = []
    kinds = [kind for kind in fuzz.KINDS if not kind.starts]  # the whole is for the benchmark
    found = fuzz.fuzz(5 * len(kinds), 7, worst.append, kinds)
    assert worst == []
    assert all(sum(seen.values()) == 5 for seen in found.values())


@pytest.mark.parametrize(
    ("status", "text", "forged", "word"),
    [
        (124, "", False, "no end"),
        (3, "iftplan: an error of our own, KeyError", False, "broke"),
        (2, "Traceback (most recent call last)", False, "broke"),
        (2, "iftplan: no such thing.", True, "refused"),
        (2, "", False, "silent"),
        (0, "a table", True, "forgery taken"),
        (0, "a table", False, "answered"),
    ],
)
def test_what_must_not_be_is_called_so(status: int, text: str, forged: bool, word: str) -> None:
    assert fuzz.verdict(status, text, forged) == word
    assert (word in fuzz.BAD) == (word not in ("refused", "answered"))
