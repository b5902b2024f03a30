"""Small modules where counters are known to go wrong, and what they really perform, worked out by hand.

`test_traps.py` holds our engines against this list, `benchmarks/counting/traps.py` other counters as well.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from iftplan.models.spec import InputSpec

OPEN = ("meta", "flop_counter")  # the jit tracer cannot follow autograd functions and vmap
ENGINES = ("meta", "flop_counter", "fvcore")


class Run(nn.Module):
    """A module around a function of its inputs."""

    def __init__(self, function: Callable[..., Any], *modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(modules)

    def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
        return self.function(*self.parts, *inputs, **named)


def run(function: Callable[..., Any], *modules: nn.Module) -> Callable[[], nn.Module]:
    return lambda: Run(function, *deepcopy(modules))


@dataclass(frozen=True)
class Trap:
    """A model, its inputs and the MACs that it really performs.

    Attributes:
        name: what is tricky.
        build: makes the model, with data.
        inputs: shapes, or whole inputs where a dtype or a keyword matters.
        macs: the truth; what has no formula, an operator of somebody else's, is left out.
        engines: those of ours that can see it at all.
        unknown: the operator that has to be named because nobody can know its cost.
        assumes: what the report has to say was assumed.
        devices: where the model can live.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: tuple[tuple[int, ...] | InputSpec, ...]
    macs: int
    engines: tuple[str, ...] = ENGINES
    unknown: str = ""
    assumes: str = ""
    devices: tuple[str, ...] = ("cpu", "meta")

    @property
    def specs(self) -> list[InputSpec]:
        """The inputs, as `measure` takes them."""
        return [i if isinstance(i, InputSpec) else InputSpec(i) for i in self.inputs]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6, bias=False)
        self.second = nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 7)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)


class Functional(nn.Module):
    """Uses its parameters without calling the modules that own them."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 6)
        self.table = nn.Embedding(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.linear.weight, self.linear.bias)
        return y @ self.linear.weight @ self.table.weight.t()


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x @ x.transpose(-1, -2)


def in_place(linear: nn.Module, x: Tensor) -> Tensor:
    x = x.clone()
    x += 1.0
    x.mul_(2).relu_()
    x.unsqueeze_(0)
    return F.relu(linear(x), inplace=True).squeeze_(0)


def viewed_after_transpose(linear: nn.Module, x: Tensor) -> Tensor:
    y = (x.transpose(0, 1) * 2).relu()  # keeps the transposed strides, as torch does
    return linear(y.transpose(0, 1).view(-1, 4))


def with_out(a: Tensor, b: Tensor) -> Tensor:
    return torch.mm(a, b, out=torch.empty(3, 5, device=a.device))


def promoted(linear: nn.Module, x: Tensor) -> Tensor:
    y = x.half() * torch.ones(4, device=x.device)  # half · float is float
    assert y.dtype is torch.float32
    assert (x.half() * 2.0).dtype is torch.float16
    assert (x.to(torch.int64) / 2).dtype is torch.float32
    assert (x > 0).dtype is torch.bool
    return linear(y)


def batch_statistics(x: Tensor) -> Tensor:
    mean, var = torch.zeros(4, device=x.device), torch.ones(4, device=x.device)
    return F.conv2d(F.batch_norm(x, mean, var, training=True), torch.ones(2, 4, 1, 1, device=x.device))


def under_autocast(linear: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return linear(x)


def packed(lstm: nn.Module, x: Tensor) -> Any:
    sequence = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([5, 2]), batch_first=False)
    return lstm(sequence)[0].data


class Sparse(nn.Module):
    """A 6 by 4 matrix with three values."""

    def __init__(self, layout: torch.layout, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        matrix = torch.zeros(6, 4)
        matrix[0, 1], matrix[3, 2], matrix[5, 0] = 1, 2, 3
        self.register_buffer("matrix", matrix.to_sparse(layout=layout))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.get_buffer("matrix"), x)


def sparse(layout: torch.layout, function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], nn.Module]:
    return lambda: Sparse(layout, function)


@torch.library.custom_op("iftplan_traps::opaque", mutates_args=())
def opaque(x: Tensor) -> Tensor:
    return x @ x.t() @ x


@opaque.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def grouped(x: Tensor, experts: Tensor) -> Tensor:
    return torch._grouped_mm(x, experts, offs=torch.tensor([1, 3, 6], dtype=torch.int32, device=x.device))


def by_keyword(linear: nn.Module, *, ids: Tensor, context: Tensor) -> dict[str, Any]:
    return {"logits": linear(ids), "scores": (context @ context.t(),)}


def one_way(taken: nn.Module, other: nn.Module, x: Tensor) -> Tensor:
    return taken(x) if x.isfinite().all() else other(x)


def as_often_as_told(linear: nn.Module, x: Tensor) -> Tensor:
    for _ in range(int(torch.isfinite(x).sum())):
        x = linear(x)
    return x


LSTM_2 = 4 * 6 * (3 + 6) + 4 * 6 * (6 + 6)
BOTH = 2 * 4 * 6 * (3 + 6) + 2 * 4 * 6 * (12 + 6)
PROJECTED = 4 * 6 * (3 + 2) + 6 * 2 + 4 * 6 * (2 + 2) + 6 * 2
MHA = 2 * (4 * 8 * 8 * 5 + 2 * 5 * 5 * 8)

TRAPS = (
    Trap(
        "attention",
        run(F.scaled_dot_product_attention),
        ((2, 4, 5, 8), (2, 4, 7, 8), (2, 4, 7, 8)),
        2 * 4 * 5 * 7 * 16,
    ),
    Trap(
        "attention, wider values",
        run(F.scaled_dot_product_attention),
        ((2, 4, 5, 8), (2, 4, 7, 8), (2, 4, 7, 6)),
        2 * 4 * 5 * 7 * 14,
    ),
    Trap(
        "attention, three dimensions",
        run(F.scaled_dot_product_attention),
        ((2, 5, 8), (2, 7, 8), (2, 7, 8)),
        2 * 5 * 7 * 16,
    ),
    Trap(
        "causal attention is computed whole",
        run(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)),
        ((1, 2, 5, 8),) * 3,
        2 * 5 * 5 * 16,
    ),
    Trap(
        "grouped queries",
        run(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True)),
        ((2, 4, 5, 8), (2, 2, 7, 8), (2, 2, 7, 8)),
        2 * 4 * 5 * 7 * 16,
    ),
    Trap(
        "multi-head attention",
        run(lambda m, x: m(x, x, x)[0], nn.MultiheadAttention(8, 2, batch_first=True)),
        ((2, 5, 8),),
        MHA,
    ),
    Trap(
        "multi-head attention without weights",
        run(lambda m, x: m(x, x, x, need_weights=False)[0], nn.MultiheadAttention(8, 2, batch_first=True)),
        ((2, 5, 8),),
        MHA,
    ),
    Trap(
        "cross attention of other widths",
        run(lambda m, q, k: m(q, k, k)[0], nn.MultiheadAttention(8, 2, kdim=6, vdim=6, batch_first=True)),
        ((2, 5, 8), (2, 3, 6)),
        2 * (2 * 5 * 64 + 2 * 3 * 48 + 2 * 5 * 3 * 8),
    ),
    Trap(
        "encoder layer",
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        ((2, 5, 8),),
        MHA + 2 * 5 * 2 * 8 * 16,
    ),
    Trap(
        "encoder layer in eval mode",
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(),
        ((2, 5, 8),),
        MHA + 2 * 5 * 2 * 8 * 16,
    ),
    Trap(
        "encoder",
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 3).eval(),
        ((2, 5, 8),),
        3 * (MHA + 2 * 5 * 2 * 8 * 16),
    ),
    Trap(
        "decoder layer",
        run(lambda m, x: m(x, x), nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)),
        ((2, 5, 8),),
        2 * MHA + 2 * 5 * 2 * 8 * 16,
    ),
    Trap(
        "einsum of two",
        run(lambda a, b: torch.einsum("bij,bjk->bik", a, b)),
        ((2, 3, 4), (2, 4, 5)),
        2 * 3 * 4 * 5,
    ),
    Trap(
        "einsum with dots",
        run(lambda a, b: torch.einsum("...ij,kj->...ik", a, b)),
        ((2, 3, 4), (5, 4)),
        2 * 3 * 4 * 5,
    ),
    Trap(
        "einsum that sums a lone index first",
        run(lambda a, b: torch.einsum("ijx,jk->ik", a, b)),
        ((3, 4, 7), (4, 5)),
        3 * 4 * 5,
    ),
    Trap(
        "einsum without a sum is no contraction",
        run(lambda a, b: torch.einsum("i,j->ij", a, b)),
        ((3,), (4,)),
        0,
    ),
    Trap(
        "einsum of three",
        run(lambda a, b, c: torch.einsum("ij,jk,kl->il", a, b, c)),
        ((3, 4), (4, 5), (5, 6)),
        3 * 4 * 5 + 3 * 5 * 6,
    ),
    Trap(
        "einsum of three, implicit output",
        run(lambda a, b, c: torch.einsum("ij,jk,kl", a, b, c)),
        ((3, 4), (4, 5), (5, 6)),
        3 * 4 * 5 + 3 * 5 * 6,
    ),
    Trap(
        "tensordot",
        run(lambda a, b: torch.tensordot(a, b, dims=([1, 2], [0, 1]))),
        ((2, 3, 4), (3, 4, 5)),
        2 * 3 * 4 * 5,
    ),
    Trap("matmul broadcasts", run(torch.matmul), ((2, 1, 3, 4), (5, 4, 6)), 2 * 5 * 3 * 4 * 6),
    Trap("matmul of a stack and a matrix", run(torch.matmul), ((2, 5, 3, 4), (4, 6)), 2 * 5 * 3 * 4 * 6),
    Trap("matmul of a matrix and a stack", run(torch.matmul), ((3, 4), (5, 4, 6)), 5 * 3 * 4 * 6),
    Trap("matrix and vector", run(torch.matmul), ((3, 4), (4,)), 12),
    Trap("vector and stack", run(torch.matmul), ((4,), (5, 4, 6)), 5 * 4 * 6),
    Trap("vectors", run(torch.matmul), ((7,), (7,)), 7),
    Trap("mv", run(torch.mv), ((3, 4), (4,)), 12),
    Trap("dot", run(torch.dot), ((7,), (7,)), 7),
    Trap("bmm", run(torch.bmm), ((2, 3, 4), (2, 4, 5)), 2 * 3 * 4 * 5),
    Trap("addmm", run(torch.addmm), ((5,), (3, 4), (4, 5)), 3 * 4 * 5),
    Trap(
        "addmm, scaled",
        run(lambda c, a, b: torch.addmm(c, a, b, beta=0.5, alpha=2)),
        ((3, 5), (3, 4), (4, 5)),
        3 * 4 * 5,
    ),
    Trap("addmm, method", run(lambda c, a, b: c.addmm(a, b)), ((3, 5), (3, 4), (4, 5)), 3 * 4 * 5),
    Trap("addmm, in place", run(lambda c, a, b: c.clone().addmm_(a, b)), ((3, 5), (3, 4), (4, 5)), 3 * 4 * 5),
    Trap("addmv", run(torch.addmv), ((3,), (3, 4), (4,)), 12),
    Trap("baddbmm", run(torch.baddbmm), ((2, 3, 5), (2, 3, 4), (2, 4, 5)), 2 * 3 * 4 * 5),
    Trap("addbmm", run(torch.addbmm), ((3, 5), (2, 3, 4), (2, 4, 5)), 2 * 3 * 4 * 5),
    Trap("an output given", run(with_out), ((3, 4), (4, 5)), 3 * 4 * 5),
    Trap(
        "convolution", lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1), ((2, 4, 9, 7),), 2 * 6 * 4 * 9 * 5 * 4
    ),
    Trap("convolution, one image", lambda: nn.Conv2d(4, 6, 3), ((4, 9, 7),), 6 * 4 * 9 * 7 * 5),
    Trap("convolution, dilated", lambda: nn.Conv2d(4, 6, 3, dilation=2), ((1, 4, 9, 7),), 6 * 4 * 9 * 5 * 3),
    Trap("grouped convolution", lambda: nn.Conv2d(4, 6, 3, groups=2), ((1, 4, 9, 7),), 6 * 2 * 9 * 7 * 5),
    Trap("depthwise convolution", lambda: nn.Conv1d(4, 8, 3, groups=4), ((1, 4, 9),), 8 * 3 * 7),
    Trap(
        "convolution in three dimensions",
        lambda: nn.Conv3d(2, 3, (1, 2, 3)),
        ((1, 2, 4, 5, 6),),
        3 * 2 * 6 * 4 * 4 * 4,
    ),
    Trap(
        "'same' padding",
        lambda: nn.Conv2d(4, 6, (4, 3), padding="same", dilation=(1, 2)),
        ((1, 4, 9, 7),),
        6 * 4 * 12 * 63,
    ),
    Trap("'valid' padding", lambda: nn.Conv2d(4, 6, 3, padding="valid"), ((1, 4, 9, 7),), 6 * 4 * 9 * 7 * 5),
    Trap(
        "reflected padding",
        lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
        ((1, 4, 9, 7),),
        6 * 4 * 9 * 63,
    ),
    Trap(
        "channels last",
        run(lambda m, x: m(x.permute(0, 3, 1, 2)), nn.Conv2d(4, 6, 3)),
        ((1, 9, 7, 4),),
        6 * 4 * 9 * 35,
    ),
    Trap(
        "transposed convolution",
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1),
        ((2, 4, 5, 7),),
        2 * 4 * 6 * 9 * 35,
    ),
    Trap(
        "transposed grouped convolution",
        lambda: nn.ConvTranspose1d(4, 6, 3, stride=2, groups=2),
        ((2, 4, 5),),
        2 * 4 * 3 * 3 * 5,
    ),
    Trap("LSTM", lambda: nn.LSTM(3, 6, 2), ((5, 2, 3),), 10 * LSTM_2),
    Trap("LSTM, batch first", lambda: nn.LSTM(3, 6, 2, batch_first=True), ((2, 5, 3),), 10 * LSTM_2),
    Trap("LSTM, unbatched", lambda: nn.LSTM(3, 6, 2), ((5, 3),), 5 * LSTM_2),
    Trap("LSTM, both directions", lambda: nn.LSTM(3, 6, 2, bidirectional=True), ((5, 2, 3),), 10 * BOTH),
    Trap("LSTM, projected", lambda: nn.LSTM(3, 6, 2, proj_size=2), ((5, 2, 3),), 10 * PROJECTED),
    Trap("LSTM without biases", lambda: nn.LSTM(3, 6, bias=False), ((5, 2, 3),), 10 * 4 * 6 * 9),
    Trap("LSTM, packed", run(packed, nn.LSTM(3, 6)), ((5, 2, 3),), 7 * 4 * 6 * 9),
    Trap("GRU", lambda: nn.GRU(3, 6, 2, bidirectional=True), ((5, 2, 3),), 10 * BOTH * 3 // 4),
    Trap("RNN", lambda: nn.RNN(3, 6, 2), ((5, 2, 3),), 10 * LSTM_2 // 4),
    Trap("RNN with relu", lambda: nn.RNN(3, 6, nonlinearity="relu"), ((5, 2, 3),), 10 * 6 * 9),
    Trap("LSTM cell", lambda: nn.LSTMCell(3, 6), ((2, 3),), 2 * 4 * 6 * 9),
    Trap("GRU cell", lambda: nn.GRUCell(3, 6), ((2, 3),), 2 * 3 * 6 * 9),
    Trap("a module called twice", run(lambda m, x: m(m(x)), nn.Linear(6, 6)), ((2, 6),), 2 * 2 * 36),
    Trap("tied weights", Tied, ((2, 6),), 2 * 2 * 36),
    Trap("checkpointed", lambda: Checkpointed(False), ((2, 5),), 2 * 35),
    Trap("checkpointed, reentrant", lambda: Checkpointed(True), ((2, 5),), 2 * 35, OPEN),
    Trap("parameters used without their modules", Functional, ((2, 4),), 2 * 4 * 6 * 2 + 2 * 4 * 9),
    Trap("in place", run(in_place, nn.Linear(4, 6)), ((3, 4),), 3 * 24),
    Trap("a view after a transpose", run(viewed_after_transpose, nn.Linear(4, 6)), ((3, 2, 4),), 6 * 24),
    Trap("dtypes promote", run(promoted, nn.Linear(4, 6)), ((3, 4),), 3 * 24),
    Trap("batch norm that trains", run(batch_statistics), ((2, 4, 3, 3),), 2 * 4 * 2 * 9),
    Trap("a linear layer with one output vector", run(lambda x, w: F.linear(x, w)), ((3, 4), (4,)), 12),
    Trap("vmap", run(lambda m, x: torch.vmap(m)(x), nn.Linear(4, 6)), ((5, 3, 4),), 5 * 3 * 24, OPEN),
    Trap("autocast", run(under_autocast, nn.Linear(4, 6).half()), ((3, 4),), 72),
    Trap(
        "tensors made inside",
        run(lambda m, x: m(x, torch.zeros(1, 3, 6)), nn.GRU(4, 6)),
        ((5, 3, 4),),
        15 * 180,
    ),
    Trap("compiled", lambda: cast("nn.Module", torch.compile(nn.Linear(4, 6))), ((3, 4),), 72),
    Trap("no batch", lambda: nn.Linear(4, 6), ((4,),), 24),
    Trap("an empty batch", lambda: nn.Linear(4, 6), ((0, 4),), 0),
    Trap("a custom autograd function", run(Square.apply), ((2, 3, 4),), 2 * 3 * 3 * 4, OPEN),
    Trap(
        "sparse matrix (COO)",
        sparse(torch.sparse_coo, lambda m, x: m @ x),
        ((4, 5),),
        3 * 5,
        OPEN,
        devices=("cpu",),
    ),
    Trap(
        "sparse matrix (CSR)",
        sparse(torch.sparse_csr, lambda m, x: m @ x),
        ((4, 5),),
        3 * 5,
        OPEN,
        devices=("cpu",),
    ),
    Trap(
        "torch.sparse.mm",
        sparse(torch.sparse_coo, torch.sparse.mm),
        ((4, 5),),
        3 * 5,
        OPEN,
        devices=("cpu",),
    ),
    Trap(
        "sparse weight of a linear layer",
        sparse(torch.sparse_coo, lambda m, x: F.linear(x, m)),
        ((5, 4),),
        3 * 5,
        OPEN,
        devices=("cpu",),
    ),
    Trap(
        "sparse matrix, transposed",
        sparse(torch.sparse_coo, lambda m, x: m.t() @ x),
        ((6, 5),),
        3 * 5,
        OPEN,
        devices=("cpu",),
    ),
    Trap("sparse matrix and vector", sparse(torch.sparse_coo, torch.mv), ((4,),), 3, OPEN, devices=("cpu",)),
    Trap(
        "an opaque custom operator",
        run(lambda m, x: opaque(m(x)), nn.Linear(4, 4)),
        ((3, 4),),
        3 * 16,
        unknown="iftplan_traps::opaque",
    ),
    Trap(
        "grouped product of experts",
        run(grouped),
        (InputSpec((6, 16), "bfloat16"), InputSpec((3, 16, 8), "bfloat16")),
        6 * 16 * 8,
    ),
    Trap(
        "keyword inputs and dict outputs",
        run(by_keyword, nn.Linear(4, 6)),
        (InputSpec((3, 4), name="ids"), InputSpec((2, 5), name="context")),
        3 * 24 + 2 * 5 * 2,
    ),
    Trap(
        "a branch that the data decides",
        run(one_way, nn.Linear(4, 6), nn.Linear(4, 4)),
        ((3, 4),),
        3 * 24,  # every input is finite
        assumes="counted for this input",
    ),
    Trap(
        "a loop as long as the data says",
        run(as_often_as_told, nn.Linear(4, 4)),
        ((3, 4),),
        12 * 3 * 16,  # each of the 12 inputs is finite
        assumes="counted for this input",
    ),
)
