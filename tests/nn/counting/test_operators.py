"""Every operator of PyTorch has one place: a formula, free of contractions, or unknown by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor, nn

from iftplan.models.spec import InputSpec
from iftplan.nn.counting.measure import measure
from iftplan.nn.counting.operators.free import is_free
from iftplan.nn.counting.operators.registry import OPERATORS, may_contract
from iftplan.nn.reading.read import read_model
from tests.support.models.traps import Run

ENGINES = ("meta", "flop_counter", "fvcore")
# What a person who reads the list of operators takes for a product, or for something that is made of products.
PRODUCT = re.compile(
    r"conv(?!ert)|matmul|linalg|linear|attention|einsum|lstm|gru|rnn|cdist|pdist|euclidean|trilinear|bilinear|fft|cholesky|inverse"
    r"|solve|lstsq|affine_grid|nuclear|corrcoef|cov$|det$|dot(?:_|$)|^grad$"
    r"|(?:^|_)(?:[a-z]*mm|[a-z]*mv|svd|eigh?|qr|lu|geqrf|orgqr|ormqr|inner|matrix_power|matrix_exp|stft|istft)(?:_|$)"
)
# Of those, what contracts nothing: interpolation, layouts, plans, packed weights, parts of cells without their products.
NONE_OF_ITS_OWN = re.compile(
    r"upsample|flatten_weight|lu_unpack|pack_quantized|cufft|check_errors|thnn_fused|prepack$|quantize_weight|pack_gemm|freq$|shift$|reorder_conv"
    r"|linalg_(?:_powsum|cross|diagonal|vander|vector_norm)|resolve_|slice_inverse"
)


def aten() -> list[str]:
    return sorted({s.name for s in torch._C._jit_get_all_schemas() if s.name.startswith("aten::")})


def test_every_operator_has_exactly_one_class() -> None:
    names = aten()
    assert len(names) > 1500
    assert not [n for n in names if (n in OPERATORS) + is_free(n) + may_contract(n) != 1]
    unknown = [n for n in names if may_contract(n)]
    assert not [n for n in unknown if not PRODUCT.search(n[6:])], "unknown, though nothing suggests a product"


def test_nothing_that_contracts_is_free() -> None:
    suspicious = {n[6:] for n in aten() if is_free(n) and PRODUCT.search(n[6:])}
    assert {n for n in suspicious if not NONE_OF_ITS_OWN.search(n)} == set()


def test_a_name_that_nobody_knows_is_not_free() -> None:
    assert may_contract("aten::a_product_of_tomorrow")
    assert may_contract("flash_attn::_flash_attn_forward")
    assert may_contract("xformers::efficient_attention_forward_cutlass")
    assert may_contract("prims::svd") and not may_contract("prims::convert_element_type")


def _batch(*sizes: int) -> InputSpec:
    return InputSpec(sizes)


KNOWN: dict[str, tuple[Callable[..., Any], tuple[InputSpec, ...], int]] = {
    "cdist of few": (torch.cdist, (_batch(20, 64), _batch(10, 64)), 20 * 10 * 64),
    "cdist of many": (torch.cdist, (_batch(30, 64), _batch(10, 64)), 30 * 10 * 64),
    "cdist by p": (lambda a, b: torch.cdist(a, b, p=1.0), (_batch(30, 64), _batch(10, 64)), 30 * 10 * 64),
    "cdist in batches": (torch.cdist, (_batch(3, 1, 30, 6), _batch(2, 40, 6)), 3 * 2 * 30 * 40 * 6),
    "cdist with products": (
        lambda a, b: torch.cdist(a, b, compute_mode="use_mm_for_euclid_dist"),
        (_batch(3, 8), _batch(5, 8)),
        3 * 5 * 8,
    ),
    "pdist": (F.pdist, (_batch(7, 5),), 21 * 5),
    "inner": (torch.inner, (_batch(24, 1), _batch(24, 1)), 576),
    "inner of batches": (torch.inner, (_batch(2, 3, 4), _batch(5, 4)), 2 * 3 * 5 * 4),
    "dot": (torch.dot, (_batch(9), _batch(9)), 9),
    "vdot": (torch.vdot, (_batch(9), _batch(9)), 9),
    "vecdot": (torch.linalg.vecdot, (_batch(3, 1, 9), _batch(4, 9)), 3 * 4 * 9),
    "tensordot": (
        lambda a, b: torch.tensordot(a, b, dims=([1], [0])),
        (_batch(3, 4, 5), _batch(4, 6)),
        3 * 4 * 5 * 6,
    ),
    # (10x30)(30x5) first: 1 500, then (10x5)(5x60): 3 000; the other way round 27 000
    "multi_dot": (lambda *m: torch.linalg.multi_dot(m), (_batch(10, 30), _batch(30, 5), _batch(5, 60)), 4500),
    "multi_dot of vectors": (
        lambda *m: torch.linalg.multi_dot(m),
        (_batch(30), _batch(30, 5), _batch(5)),
        30 * 5 + 5,
    ),
    "multi_dot of four": (
        lambda *m: torch.linalg.multi_dot(m),
        (_batch(4, 10), _batch(10, 3), _batch(3, 12), _batch(12, 20)),
        120 + 720 + 240,  # the first two, the last two, then both
    ),
    "chain_matmul": (lambda *m: torch.chain_matmul(*m), (_batch(10, 30), _batch(30, 5), _batch(5, 60)), 4500),
    "matrix_power": (lambda a: torch.linalg.matrix_power(a, 6), (_batch(2, 5, 5),), 3 * 2 * 125),
    "matrix_power of 3": (lambda a: torch.matrix_power(a, 3), (_batch(5, 5),), 2 * 125),
    "cosine_similarity": (F.cosine_similarity, (_batch(7, 9), _batch(7, 9)), 7 * 9),
    "cosine_similarity of all": (
        lambda a, b: F.cosine_similarity(a[:, None], b[None], dim=-1),
        (_batch(7, 9), _batch(5, 9)),
        7 * 5 * 9,
    ),
    "cosine_similarity of channels": (
        nn.CosineSimilarity(),
        (_batch(2, 8, 3, 3), _batch(2, 8, 3, 3)),
        2 * 8 * 9,
    ),
    "vecdot of vectors": (torch.linalg.vecdot, (_batch(9), _batch(9)), 9),
    "vecdot of columns": (lambda a, b: torch.linalg.vecdot(a, b, dim=0), (_batch(9, 3), _batch(9, 3)), 27),
    "addbmm": (torch.addbmm, (_batch(3, 5), _batch(2, 3, 4), _batch(2, 4, 5)), 2 * 3 * 4 * 5),
    "baddbmm": (torch.baddbmm, (_batch(2, 3, 5), _batch(2, 3, 4), _batch(2, 4, 5)), 2 * 3 * 4 * 5),
    "addmv": (torch.addmv, (_batch(3), _batch(3, 4), _batch(4)), 12),
    "bilinear": (F.bilinear, (_batch(7, 4), _batch(7, 5), _batch(3, 4, 5)), 7 * 3 * (4 * 5 + 5)),
    "conv_tbc": (
        lambda x, w, b: torch.conv_tbc(x, w, b, 1),
        (_batch(9, 2, 3), _batch(3, 3, 4), _batch(4)),
        9 * 2 * 3 * 3 * 4,
    ),
    "affine_grid": (
        lambda t: F.affine_grid(t, [2, 3, 5, 6], align_corners=False),
        (_batch(2, 2, 3),),
        2 * 30 * 6,
    ),
    "outer": (torch.outer, (_batch(3), _batch(4)), 0),
    "ger": (torch.ger, (_batch(3), _batch(4)), 0),
    "addr": (torch.addr, (_batch(3, 4), _batch(3), _batch(4)), 0),
    "kron": (torch.kron, (_batch(3, 4), _batch(2, 2)), 0),
    "cross": (torch.linalg.cross, (_batch(4, 3), _batch(4, 3)), 0),
    "grid_sample": (
        lambda x, g: F.grid_sample(x, g, align_corners=False),
        (_batch(1, 2, 5, 5), _batch(1, 4, 4, 2)),
        0,
    ),
    "interpolate": (lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"), (_batch(1, 2, 5, 5),), 0),
    "pairwise_distance": (F.pairwise_distance, (_batch(4, 8), _batch(4, 8)), 0),
    "trace": (torch.trace, (_batch(4, 4),), 0),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", KNOWN)
def test_products_under_other_names_are_counted_by_every_engine(name: str, engine: str) -> None:
    function, inputs, macs = KNOWN[name]
    table = measure(Run(function), inputs, engine=engine)
    assert (table.macs, table.unknown) == (macs, {})


@pytest.mark.parametrize("engine", ["meta", "flop_counter"])
def test_products_of_samples_under_vmap_are_those_of_all(engine: str) -> None:
    """A tracer sees a multiplication and a sum there."""
    for function in (torch.linalg.vecdot, partial(F.cosine_similarity, dim=-1)):
        table = measure(Run(torch.vmap(function)), [_batch(7, 3, 9)] * 2, engine=engine)
        assert (table.macs, table.unknown) == (7 * 3 * 9, {})


REDUCTIONS: dict[str, Callable[[Tensor], Any]] = {
    "normalize": lambda x: F.normalize(x, dim=-1),
    "normalize by p": lambda x: F.normalize(x, p=1.5, dim=-1),
    "norm": lambda x: x / x.norm(dim=-1, keepdim=True),
    "norm of all": lambda x: x / x.norm(),
    "vector_norm": lambda x: x / torch.linalg.vector_norm(x, dim=-1, keepdim=True),
    "linalg.norm": lambda x: x / torch.linalg.norm(x, dim=-1, keepdim=True),
    "matrix_norm": lambda x: x / torch.linalg.matrix_norm(x),
    "var": lambda x: x / x.var(-1, keepdim=True),
    "std": lambda x: x / x.std(-1, keepdim=True),
    "std_mean": lambda x: x / torch.std_mean(x, dim=-1, keepdim=True)[0],
    "logsumexp": lambda x: x - x.logsumexp(-1, keepdim=True),
    "cumsum": lambda x: x.cumsum(-1),
    "cumprod": lambda x: x.cumprod(-1),
    "logcumsumexp": lambda x: x.logcumsumexp(-1),
    "cummax": lambda x: x.cummax(-1)[0],
    "amax": lambda x: x - x.amax(-1, keepdim=True),
    "aminmax": lambda x: x - torch.aminmax(x, dim=-1, keepdim=True)[0],
    "prod": lambda x: x * x.prod(-1, keepdim=True),
    "median": lambda x: x - x.median(-1, keepdim=True)[0],
    "nanmean": lambda x: x - x.nanmean(-1, keepdim=True),
    "renorm": lambda x: x.renorm(2, 0, 1.0),
    "sort": lambda x: x.sort(-1)[0],
    "rms": lambda x: F.rms_norm(x, x.shape[-1:]),
    "dist": lambda x: x / torch.dist(x, torch.zeros_like(x)),
    "log_softmax": lambda x: x.log_softmax(-1),
}


class Normed(nn.Module):
    """21 504 MACs at three rows: 16·64 + 64·64 + 64·32 each."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(16, 64), nn.Linear(64, 64), nn.Linear(64, 32)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.second(self.first(x).relu()).relu()))


@pytest.mark.parametrize("name", REDUCTIONS)
def test_norms_and_reductions_are_free_and_do_not_keep_a_model_from_widening(name: str) -> None:
    model = Normed(REDUCTIONS[name])
    tables = [measure(model, [InputSpec((3, 16))], engine=engine) for engine in ENGINES]
    assert [(t.macs, t.unknown) for t in tables] == 3 * [(3 * (16 * 64 + 64 * 64 + 64 * 32), {})]
    spec = read_model(model, (InputSpec((3, 16)),), widths=True)
    assert spec.macs == 21504
    assert spec.couplings is not None, spec.refusal


UNKNOWN: dict[str, Callable[[Tensor], Any]] = {
    "solve": lambda x: torch.linalg.solve(x, x),
    "inv": torch.linalg.inv,
    "svd": lambda x: torch.linalg.svd(x)[0],
    "cholesky": torch.linalg.cholesky,
    "qr": lambda x: torch.linalg.qr(x)[0],
    "eigh": lambda x: torch.linalg.eigh(x)[0],
    "det": torch.linalg.det,
    "matrix_exp": torch.linalg.matrix_exp,
    "matrix_norm": lambda x: torch.linalg.matrix_norm(x, ord="nuc"),
    "norm 2 of a matrix": lambda x: torch.linalg.norm(x, ord=2),
    "nuclear norm": lambda x: x.norm(p="nuc"),
    "negative power": lambda x: torch.linalg.matrix_power(x, -2),
    "pinv": torch.linalg.pinv,
    "fft": torch.fft.fft2,
    "rfft": torch.fft.rfft,
    "stft": lambda x: torch.stft(x, 4, window=torch.ones(4, device=x.device), return_complex=True),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", UNKNOWN)
def test_decompositions_and_transforms_are_named(name: str, engine: str) -> None:
    model = Run(UNKNOWN[name])
    model.register_buffer("nowhere", torch.empty(1, device="meta"))  # zeros have no inverse; shapes have
    table = measure(model, [InputSpec((6, 6))], engine=engine)
    assert table.unknown


def test_the_covariance_is_a_product() -> None:
    assert measure(Run(torch.cov), [InputSpec((4, 9))], engine="fvcore").macs == 4 * 4 * 9


def test_distances_to_prototypes_widen() -> None:
    """The features and the prototypes that they are held against are as wide as each other."""

    class Prototypes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 64))
            self.prototypes = nn.Parameter(torch.ones(10, 64))

        def forward(self, x: Tensor) -> Tensor:
            return -torch.cdist(self.body(x), self.prototypes)

    for rows in (20, 30):
        spec = read_model(Prototypes(), (InputSpec((rows, 16)),), widths=True)
        assert spec.macs == rows * (16 * 32 + 32 * 64 + 64 * 10)
        assert spec.couplings is not None, spec.refusal
