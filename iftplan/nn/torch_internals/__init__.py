"""Everything of PyTorch that this project uses and PyTorch does not promise, each with a check that it does what is needed.

No other module imports a private name of torch. `require` runs the checks of one use, once a process and in milliseconds,
so that a release of PyTorch in which an interface has changed is named in a message, with what still works.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from types import MappingProxyType
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn, optim
from torch._ops import HigherOrderOperator
from torch.nn.modules.batchnorm import _NormBase as NormBase
from torch.nn.modules.conv import _ConvNd as ConvNd
from torch.utils._python_dispatch import TorchDispatchMode as _TorchDispatchMode
from torch.utils._python_dispatch import _disable_current_modes as without_modes
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from iftplan.base.errors import MeasureError
from iftplan.nn.torch_internals.late_modules import compiler_loaded, put_off_modules

put_off_modules()

__all__ = [
    "ConvNd",
    "HigherOrderOperator",
    "NormBase",
    "TorchDispatchMode",
    "as_plain_tensors",
    "call_below_modes",
    "compiled_in_trace",
    "compiler_loaded",
    "failure",
    "forward_hooks",
    "indexed_by_tensors",
    "inside_transform",
    "of_sizes",
    "operator_name",
    "pause_tracing",
    "processor_has_bf16",
    "quiet_tracer",
    "require",
    "script_schemas",
    "step_hooks",
    "storage_address",
    "tracing",
    "tree_flatten",
    "tree_leaves",
    "tree_map",
    "tree_unflatten",
    "without_dispatch",
    "without_modes",
    "without_torch_function",
    "without_transforms",
]


class TorchDispatchMode(_TorchDispatchMode):  # type: ignore[no-untyped-call]
    """torch's TorchDispatchMode without its compiler: a mode that nothing compiles needs no protection from it."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


NEWEST_TESTED: Final = "2.14.1"
"""The newest release that the whole suite and the sweep run with, see constraints-newest.txt."""

without_torch_function: Final = torch._C.DisableTorchFunction
"""A context in which functions of torch do not ask the function modes."""

as_plain_tensors: Final = torch._C.DisableTorchFunctionSubclass
"""A context in which subclasses of Tensor are taken as plain tensors; the function modes stay."""

without_dispatch: Final = torch._C._DisableTorchDispatch
"""A guard: as long as the object lives, operators do not ask the dispatch modes."""


def inside_transform() -> bool:
    """Whether a functorch transform (vmap, grad) is running, under which shapes lack a dimension."""
    return torch._C._functorch.maybe_current_level() is not None


def without_transforms(tensor: Tensor) -> Tensor:
    """The tensor that a functorch transform (vmap, grad) wraps, with every dimension; another one as it is."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def storage_address(tensor: Tensor) -> int:
    """Address of the storage that a tensor and its views share, on the meta device too; of a sparse tensor its own."""
    if tensor.layout is not torch.strided:
        return id(tensor)  # several storages, and a view of it has others
    address: int = tensor.untyped_storage()._cdata
    return address


@contextmanager
def quiet_tracer() -> Iterator[None]:
    """Silence the warnings that torch's jit is deprecated, which it gives from 2.14 on.

    fvcore needs the tracer, and the user did not ask for it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.", FutureWarning)
        warnings.filterwarnings("ignore", r"`torch\.jit\.", DeprecationWarning)
        yield


def tracing() -> bool:
    """Whether torch's jit tracer is recording."""
    return torch._C._get_tracing_state() is not None


@contextmanager
def pause_tracing() -> Iterator[None]:
    """Let the jit tracer record nothing, and sizes be numbers, while the context is open."""
    internals: Any = torch._C  # whose stub leaves these out
    state = internals._get_tracing_state()
    internals._set_tracing_state(None)
    try:
        yield
    finally:
        internals._set_tracing_state(state)


def of_sizes(value: Tensor) -> bool:
    """Whether a value that the jit tracer follows comes of sizes alone, which are no data."""
    internals: Any = torch._C
    waiting = [internals._get_value_trace(value)]
    while waiting:
        node = waiting.pop().node()
        if node.kind() == "prim::Param":
            return False
        if node.kind() != "aten::size":
            waiting += node.inputs()
    return True


def _is_tracing(symbolic: Any) -> bool:
    """Whether torch.fx traces; from 2.14 on a function tells."""
    newer = getattr(symbolic, "_get_is_fx_tracing", None)
    tracing: bool = newer() if newer else symbolic._is_fx_tracing_flag
    return tracing


def _set_tracing(symbolic: Any, tracing: bool) -> None:
    if hasattr(symbolic, "_set_is_fx_tracing"):
        symbolic._set_is_fx_tracing(tracing)
    else:
        symbolic._is_fx_tracing_flag = tracing


@contextmanager
def compiled_in_trace() -> Iterator[None]:
    """Let functions that were compiled before run as they were written under the jit tracer, which they refuse."""
    if not compiler_loaded():
        yield
        return
    symbolic: Any = sys.modules["torch.fx._symbolic_trace"]
    flag = _is_tracing(symbolic)
    dynamo: Any = sys.modules["torch._dynamo"]
    with dynamo.config.patch(error_on_nested_fx_trace=False):
        _set_tracing(symbolic, True)  # of torch.fx they run inside, and are recorded
        try:
            yield
        finally:
            _set_tracing(symbolic, flag)


def indexed_by_tensors() -> AbstractContextManager[Any]:
    """A context in which `table[i]` with a tensor `i` of no dimension is an index, and nobody asks for its value."""
    from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex

    return TransformGetItemToIndex()


def script_schemas(name: str) -> list[Any]:
    """The signatures of an operator that TorchScript knows; none where there is no such operator."""
    internals: Any = torch._C
    return list(internals._jit_get_schemas_for_operator(name))


def operator_name(operator: HigherOrderOperator) -> str:
    """The name of a higher-order operator."""
    return str(operator._name)


def call_below_modes(operator: Callable[..., Any], *args: Any) -> Any:
    """Call an operator below the dispatch modes so that the jit tracer writes it down."""
    tracer = torch._C._dispatch_key_parse("Tracer")
    included = torch._C._dispatch_tls_local_include_set().add(tracer)
    excluded = torch._C._dispatch_tls_local_exclude_set().remove(tracer)
    with torch._C._ForceDispatchKeyGuard(included, excluded):
        return operator(*args)


def processor_has_bf16() -> bool:
    """Whether the processor multiplies in bfloat16 itself; no where this release of PyTorch cannot tell."""
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in asked)


def step_hooks(optimizer: optim.Optimizer) -> Mapping[int, Callable[..., Any]]:
    """Hooks that run before each step of the optimizer; the dictionary itself."""
    hooks: Mapping[int, Callable[..., Any]] = optimizer._optimizer_step_pre_hooks
    return hooks


def forward_hooks(module: nn.Module) -> tuple[dict[int, Any], dict[int, Any]]:
    """Hooks that run after and before the module's forward pass; the dictionaries themselves."""
    return module._forward_hooks, module._forward_pre_hooks


Use = Literal["counting", "tracing", "widths"]

_NEEDS: Final[Mapping[Use, tuple[str, str]]] = MappingProxyType(
    {
        "counting": (
            "Counting on the meta device",
            "The engines `fvcore` and `flop_counter` may still count, and `solve` works.",
        ),
        "tracing": (
            "Counting with fvcore on the meta device",
            "The engines `meta` and `flop_counter` work, and so does everything else.",
        ),
        "widths": (
            "Following widths, which Sparse Wide needs,",
            "Counting, audits and every plan that keeps the widths (parallel, factorized, doped) work.",
        ),
    }
)


def require(use: Use) -> None:
    """Refuse if this release of PyTorch lacks an interface that `use` needs.

    Args:
        use: "counting" of operators on the meta device, "tracing" of them for fvcore, or "widths" of symbolic size.

    Raises:
        MeasureError: names the release, the interface, and what still works.
    """
    why = failure(use)
    if why:
        what, rest = _NEEDS[use]
        raise MeasureError(
            f"{what} does not work with PyTorch {torch.__version__}: {why}. {rest} The newest release that was tested is {NEWEST_TESTED}: pip install 'torch<={NEWEST_TESTED}'."
        )


@cache
def failure(use: Use) -> str:
    """Name of an interface behind `use` that this PyTorch lacks or has changed, and how; empty if none."""
    for canary in CANARIES[use]:
        name = (canary.__doc__ or "").split(":")[0]
        try:
            held = canary()
        except Exception as error:
            return f"{name} raises {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        if not held:
            return f"{name} behaves differently than before"
    return ""


class _Seen(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes which operators reach the dispatcher."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.names.append(func._schema.name)
        with without_torch_function():
            return func(*args, **(kwargs or {}))


def _dispatches() -> bool:
    """TorchDispatchMode: sees the operators below a function, on the meta device."""
    with _Seen() as seen:
        nn.functional.linear(torch.empty(2, 3, device="meta"), torch.empty(4, 3, device="meta"))
    return "aten::mm" in seen.names


def _does_not_dispatch() -> bool:
    """torch._C._DisableTorchDispatch: hides operators from the modes while its object lives."""
    with _Seen() as seen:
        guard = without_dispatch()
        torch.empty(2, device="meta").view(1, 2)
        del guard
        hidden = not seen.names
        torch.empty(2, device="meta").view(1, 2)
    return hidden and bool(seen.names)


def _knows_views() -> bool:
    """Storage addresses: are the same for a view, and not for another tensor."""
    one, other = torch.empty(2, 3, device="meta"), torch.empty(2, 3, device="meta")
    return storage_address(one.t()) == storage_address(one) != storage_address(other)


def _knows_transforms() -> bool:
    """torch._C._functorch: tells whether vmap is running, and what it wraps."""
    inside: list[bool] = []

    def noted(x: Tensor) -> Tensor:
        inside.append(inside_transform() and without_transforms(x).shape == (2, 3))
        return x.view(3, 1)

    torch.func.vmap(noted)(torch.empty(2, 3, device="meta"))
    return inside == [True] and not inside_transform()


def _records() -> bool:
    """torch._C._ForceDispatchKeyGuard: lets the jit tracer record an operator that a mode calls."""

    class Recording(_Seen):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
        ) -> Any:
            if func is not torch.ops.aten.convolution.default or not tracing():
                return super().__torch_dispatch__(func, types, args, kwargs)
            return call_below_modes(torch.ops.aten._convolution.default, *args, False, False, False, False)

    image, weight = torch.empty(1, 2, 4, 4, device="meta"), torch.empty(3, 2, 3, 3, device="meta")
    with Recording(), torch.no_grad(), quiet_tracer():
        graph = torch.jit.trace(  # type: ignore[no-untyped-call]
            lambda x, w: nn.functional.conv2d(x, w), (image, weight), check_trace=False
        ).graph
    return any(node.kind() == "aten::_convolution" for node in graph.nodes())


def _follows_sizes() -> bool:
    """torch's ShapeEnv: asks `evaluate_expr` wherever two symbolic sizes meet, and takes its answer."""
    from iftplan.nn.torch_internals import sizes  # which brings SymPy

    if sizes.MISSING:
        raise ImportError(sizes.MISSING)
    return sizes.follows_sizes()


CANARIES: Final[Mapping[Use, tuple[Callable[[], bool], ...]]] = MappingProxyType(
    {
        "counting": (_dispatches, _does_not_dispatch, _knows_views, _knows_transforms),
        "tracing": (_records,),
        "widths": (_follows_sizes,),
    }
)
"""What is tried for each use."""
