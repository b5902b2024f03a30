"""Mixture of experts in the place of a feed-forward block (arXiv 2101.03961, section 2; 2507.08771 for the ReLU router).

`MixtureOfExperts` takes over the parts of the block: its linear layers become stacks of experts under their names, and the
block's own code, with its activation and its dropout, computes the rows of all experts at once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor, nn

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InfeasibleError
from iftplan.families.transforms.experts import Mixture
from iftplan.nn.layers.stacks import StackedLinear
from iftplan.plans.experts import ROUTER, SHARED

_PASSING: Final = ("_loss", "active")
"""Attributes that belong to the last forward pass and not to the module."""

STEEPNESS: Final = 100.0
"""Factor τ before the sigmoid that tells experts which are on from those which are off."""

CHUNK: Final = 8
"""Consecutive tokens whose experts are loaded together."""


class Dispatch:
    """Owners of the rows that a block's experts compute now.

    Attributes:
        owners: the expert of each row, those of the first expert first.
        ends: where the rows of each expert end.
    """

    owners: Tensor
    ends: Tensor

    def __getstate__(self) -> dict[str, Any]:
        return {}


class ExpertLinear(StackedLinear):
    """One product of all experts, on rows that are sorted by expert.

    Args:
        dispatch: the rows' owners, which the mixture sets.
        *sizes: experts, inputs and outputs, and whether there are biases, as `StackedLinear` takes them.
        **options: `device` and `dtype` of the parameters.
    """

    def __init__(self, dispatch: Dispatch, *sizes: Any, **options: Any) -> None:
        super().__init__(*sizes, **options)
        self.dispatch = dispatch

    def forward(self, rows: Tensor) -> Tensor:  # type: ignore[override]
        """Products of the rows with the matrices of their experts, (rows, outputs)."""
        return super().forward(rows, self.dispatch.owners, self.dispatch.ends)


class ReluScores(nn.Module):
    """Scores of BlockFFN's router: RMSNorm of ReLU, so that an expert is on or off (arXiv 2507.08771).

    Args:
        experts: number of scores.
        **options: `device` and `dtype` of the parameters.
    """

    def __init__(self, experts: int, **options: Any) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(experts, eps=1e-6, **options)

    def forward(self, logits: Tensor) -> Tensor:
        """Scores, (tokens, experts); zero for experts that are off."""
        found: Tensor = self.norm(F.relu(logits))
        return found


class UngatedBlock(nn.Module):
    """Two layers of a block with Swish between them, in the place of its own code (arXiv 2507.08771).

    Args:
        host: the block; its parts are taken over under their names.
        removed: paths of the layers that it loses.
        up: path of the layer that widens.
        down: path of the layer that narrows.
    """

    def __init__(self, host: nn.Module, removed: Sequence[str], up: str, down: str) -> None:
        super().__init__()
        for path in removed:
            parent, _, name = path.rpartition(".")
            del host.get_submodule(parent)._modules[name]
        self._modules = host._modules
        self._ends = (up, down)  # a name that no part of a block has

    def forward(self, x: Tensor) -> Tensor:
        """Rows through both layers, in the input's shape."""
        up, down = map(self.get_submodule, self._ends)
        out: Tensor = down(F.silu(up(x)))
        return out


class MixtureOfExperts(nn.Module):
    """Experts in the place of a feed-forward block, of which each token meets k.

    Args:
        host: the block; its parts are taken over under their names.
        mixture: how many experts, and of which kind.
        widths: for each of the block's linear layers, by its path: inputs and outputs of an expert.
        model_width: inputs of the router.
        removed: paths of the block's layers that no expert has; then its code is `UngatedBlock`'s.

    Attributes:
        router: scores of the experts, (tokens, experts).
        shared: the block at the width of the shared experts; None where there are none.
        active: experts that a token met on average in the last pass with data.

    Raises:
        InfeasibleError: the block has parts of the names that a mixture needs.
    """

    def __init__(
        self,
        host: nn.Module,
        mixture: Mixture,
        widths: Mapping[str, tuple[int, int]],
        model_width: int,
        removed: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if {ROUTER, SHARED, "scores"} & host._modules.keys():
            raise InfeasibleError(
                f"a block that has a part named {ROUTER!r}, 'scores' or {SHARED!r} already cannot become experts."
            )
        self.mixture, self.dispatch = mixture, Dispatch()
        first = host.get_submodule(next(iter(widths)))
        weight = first.weight
        assert isinstance(weight, Tensor)
        options: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
        if removed:
            host = UngatedBlock(host, removed, *widths)
        shared = copy.deepcopy(host) if mixture.shared else None
        for path, (inputs, outputs) in widths.items():
            _replace_(host, path, self._expert(inputs, outputs, options))
        self._modules = host._modules  # one dictionary: what stands in the one stands in the other
        self.host = (host,)  # its code; a tuple, so that it is no part of its own
        self.router = nn.Linear(model_width, mixture.experts, bias=False, **options)
        self.scores = ReluScores(mixture.experts, **options) if mixture.router == "relu" else None
        self.shared = None if shared is None else _resized(shared, widths, mixture.shared, options)
        self._loss: Tensor | None = None
        self.active: Tensor | None = None

    def _expert(self, inputs: int, outputs: int, options: Mapping[str, Any]) -> Callable[[bool], nn.Module]:
        return lambda bias: ExpertLinear(
            self.dispatch, self.mixture.experts, inputs, outputs, bias, **options
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, **dict.fromkeys(_PASSING)}

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all parts, and of the block's own code."""
        self.host[0].training = mode
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of the experts that the router chose for each token, weighted and summed, in the input's shape."""
        tokens = x.reshape(-1, x.shape[-1])
        logits = self.router(tokens)
        weights, owners, rows_of = self._chosen(logits)
        self._note_neighbours(logits.view(*x.shape[:-1], -1))
        out = self._padded(tokens, weights, owners, rows_of) if self.mixture.capacity is not None else None
        if out is None:
            rows = self._computed(tokens[rows_of], owners, self._ends(owners))
            out = torch.zeros_like(tokens).index_add(
                0, rows_of, (rows * weights.unsqueeze(-1)).to(tokens.dtype)
            )
        if self.shared is not None:
            out = out + self.shared(tokens)
        return out.view_as(x)

    def _chosen(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weight, expert and token of every row, sorted by expert."""
        k, tokens = self.mixture.top_k, int(logits.shape[0])
        if self.scores is not None:
            return self._above_zero(self.scores(logits))
        probabilities = logits.float().softmax(dim=-1)
        weights, chosen = probabilities.topk(k, dim=-1)
        if k > 1:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        owners, order = torch.sort(chosen.reshape(-1), stable=True)
        self._note(probabilities, owners, tokens)
        return weights.reshape(-1)[order].to(logits.dtype), owners, order // k

    def _above_zero(self, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same where every expert of a score above zero is on; as many as planned where there are no data."""
        if scores.is_meta:
            weights, chosen = scores.topk(self.mixture.top_k, dim=-1)
            owners, order = torch.sort(chosen.reshape(-1), stable=True)
            return weights.reshape(-1)[order], owners, order // self.mixture.top_k
        owners, rows_of = (scores > 0).T.nonzero(as_tuple=True)
        self._note(scores / scores.sum(dim=-1, keepdim=True).clamp_min(1e-9), owners, scores.shape[0])
        return scores[rows_of, owners], owners, rows_of

    def _ends(self, owners: Tensor) -> Tensor:
        experts = torch.arange(self.mixture.experts, device=owners.device)
        return torch.searchsorted(owners, experts, right=True, out_int32=True)

    def _computed(self, rows: Tensor, owners: Tensor, ends: Tensor) -> Tensor:
        """Rows as the block's own code gives them, each by the matrices of its expert."""
        self.dispatch.owners, self.dispatch.ends = owners, ends
        out: Tensor = self.host[0].forward(rows)
        return out

    def _padded(self, tokens: Tensor, weights: Tensor, owners: Tensor, rows_of: Tensor) -> Tensor:
        """Outputs where every expert computes C rows: those above are left out, and what is missing is zeros."""
        experts, room = self.mixture.experts, self.mixture.rows_per_expert(int(tokens.shape[0]))
        ends = self._ends(owners).long()
        starts = torch.cat([ends.new_zeros(1), ends[:-1]])
        place = torch.arange(len(owners), device=owners.device) - starts[owners]
        spare = experts * room  # one row more, for those that find no room
        slots = torch.where(place < room, owners * room + place, spare)
        rows = tokens.new_zeros(spare + 1, tokens.shape[1]).index_copy(0, slots, tokens[rows_of])
        each = torch.arange(experts, device=owners.device)
        out = self._computed(rows[:-1], each.repeat_interleave(room), ((each + 1) * room).int())
        found = torch.cat([out, out.new_zeros(1, out.shape[1])])[slots]
        return torch.zeros_like(tokens).index_add(
            0, rows_of, (found * weights.unsqueeze(-1)).to(tokens.dtype)
        )

    def _note(self, probabilities: Tensor, owners: Tensor, tokens: int) -> None:
        """Keep the balancing loss α·E·Σ f_i·P_i, which is α where tokens are spread evenly."""
        if probabilities.is_meta:
            return
        self.active = torch.tensor(len(owners) / max(tokens, 1))
        if self.training and torch.is_grad_enabled():
            ends = self._ends(owners)
            share = ends.diff(prepend=ends.new_zeros(1)).to(probabilities.dtype) / max(len(owners), 1)
            spread = self.mixture.experts * (share * probabilities.mean(dim=0)).sum()
            self._loss = float(self.mixture.balance) * spread

    def _note_neighbours(self, logits: Tensor) -> None:
        """Add what neighbouring tokens cost that meet different experts, where it is asked for."""
        locality, chunks = float(self.mixture.locality), float(self.mixture.chunks)
        if self.scores is None or self._loss is None or logits.dim() < 3 or not (locality or chunks):
            return
        if locality and logits.shape[-2] > 1:
            self._loss = self._loss + locality * locality_loss(logits)
        if chunks and logits.shape[-2] >= CHUNK:
            self._loss = self._loss + chunks * chunk_loss(self.scores(logits))

    def take_loss(self) -> Tensor | None:
        """Auxiliary loss of the last pass, coefficients included, once; None where there is none."""
        found, self._loss = self._loss, None
        return found


def locality_loss(logits: Tensor) -> Tensor:
    """Binary cross-entropy of neighbouring tokens' experts, of σ(τ·s_t) and σ(τ·s_(t+1)) (arXiv 2507.08771).

    Args:
        logits: (…, tokens, experts), before the ReLU.
    """
    here, after = STEEPNESS * logits[..., :-1, :], STEEPNESS * logits[..., 1:, :]
    return F.binary_cross_entropy_with_logits(here, after.sigmoid())


def chunk_loss(scores: Tensor) -> Tensor:
    """Share of experts that chunks of tokens meet, softly: the mean of 1 - Π(1 - p_t) (arXiv 2507.08771).

    Args:
        scores: (…, tokens, experts), 0 for experts that are off; tokens behind the last whole chunk are left out.
    """
    shares = scores / scores.sum(dim=-1, keepdim=True).clamp_min(1e-5)
    count = scores.shape[-2] // CHUNK
    chunks = shares[..., : count * CHUNK, :].reshape(*shares.shape[:-2], count, CHUNK, shares.shape[-1])
    missed: Tensor = (1 - chunks).clamp_min(1e-5).log().sum(dim=-2).exp()
    return 1 - missed.mean()


@check_arguments
def auxiliary_loss(model: nn.Module) -> Tensor | float:
    """Auxiliary loss of all mixtures of experts in the pass before, to be added to a training loop's own.

    Of each it is α·E·Σ f_i·P_i, with f_i the share of choices that fell on expert i and P_i the router's mean probability
    of it (arXiv 2101.03961, equation 4), and what the mixture asks for of neighbouring tokens. Asking takes it: the next
    answer is about the next pass. It is 0 where nothing is a mixture, or nothing was trained on.

    Example:
        >>> auxiliary_loss(nn.Linear(3, 3))
        0.0
    """
    found = [module.take_loss() for module in model.modules() if isinstance(module, MixtureOfExperts)]
    return sum((loss for loss in found if loss is not None), 0.0)


def _replace_(host: nn.Module, path: str, make: Callable[[bool], nn.Module]) -> None:
    parent, _, name = path.rpartition(".")
    owner = host.get_submodule(parent)
    owner._modules[name] = make(getattr(owner._modules[name], "bias", None) is not None)


def _resized(
    host: nn.Module, widths: Mapping[str, tuple[int, int]], times: int, options: Mapping[str, Any]
) -> nn.Module:
    """The block at the width of so many experts together."""
    last = list(widths)[-1]
    for path, (inputs, outputs) in widths.items():
        sizes = (inputs * times, outputs) if path == last else (inputs, outputs * times)
        _replace_(host, path, lambda bias, sizes=sizes: nn.Linear(*sizes, bias=bias, **options))  # type: ignore[misc]
    return host
