"""Selection among parts, by threads in the place of processes: what all parts choose together is what the whole does."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Barrier, Thread

import pytest
import torch
from torch import Generator, Tensor

from iftplan.nn.masks.spread import Spread
from iftplan.nn.masks.top_k import top_k_mask

Cut = tuple[tuple[int, int], ...]


class Meeting:
    """A sum over threads."""

    def __init__(self, threads: int) -> None:
        self.barrier, self.given = Barrier(threads), dict[int, Tensor]()

    def summed(self, who: int, counts: Tensor) -> Tensor:
        self.given[who] = counts.clone()
        self.barrier.wait()
        total = torch.stack(list(self.given.values())).sum(0)
        self.barrier.wait()
        return total


@dataclass(frozen=True, slots=True, eq=False)
class Threaded(Spread):
    meeting: Meeting | None = None
    who: int = 0

    def summed(self, counts: Tensor) -> Tensor:
        assert self.meeting is not None
        return self.meeting.summed(self.who, counts)


CUTS: dict[str, list[Cut]] = {
    "rows, one process without any": [((0, 5), (0, 8)), ((5, 7), (0, 8)), ((7, 7), (0, 8))],
    "columns": [((0, 7), (0, 3)), ((0, 7), (3, 8))],
    "blocks": [((a, b), (c, d)) for a, b in ((0, 4), (4, 7)) for c, d in ((0, 5), (5, 8))],
}


def chosen(scores: Tensor, cuts: list[Cut], count: int) -> Tensor:
    """The parts' choices, put together."""
    meeting, found = Meeting(len(cuts)), torch.zeros(scores.shape, dtype=torch.bool)

    def choose(who: int, cut: Cut) -> None:
        area = tuple(slice(*side) for side in cut)
        sizes = tuple(stop - start for start, stop in cut)
        spread = Threaded(tuple(scores.shape), tuple(s for s, _ in cut), sizes, (), meeting, who)
        mine = spread.largest(scores[area].reshape(1, -1), count)
        found[area] = mine.view(sizes)

    threads = [Thread(target=choose, args=place) for place in enumerate(cuts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("name", CUTS)
@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_parts_choose_what_the_whole_does(name: str, kind: torch.dtype) -> None:
    """With ties at every level, zeros and excluded entries; for every count there is."""
    for seed, levels in ((0, 0), (1, 3)):
        drawn = torch.rand(7, 8, generator=Generator().manual_seed(seed), dtype=torch.float64)
        scores = (drawn if not levels else (drawn * levels).floor()).to(kind)
        scores[2:4, 3:6] = -1
        for count in range(0, 57, 1 if levels else 7):
            whole = top_k_mask(scores.reshape(1, -1), count).view(scores.shape)
            assert torch.equal(chosen(scores, CUTS[name], count), whole)


def test_more_than_there_are_cannot_be_chosen() -> None:
    with pytest.raises(ValueError, match="57 of 56"):
        Spread((7, 8), (0, 0), (7, 8), ()).largest(torch.rand(1, 56), 57)


def test_parts_draw_what_the_whole_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where numbers are drawn in pieces, as those of large weights are."""
    monkeypatch.setattr("iftplan.nn.masks.spread._DRAWN", 16)
    whole = torch.rand(7, 8, generator=Generator().manual_seed(3))
    part = Spread((7, 8), (4, 5), (3, 3), ()).random(Generator().manual_seed(3))
    assert torch.equal(part.view(3, 3), whole[4:7, 5:8])
