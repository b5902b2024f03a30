"""What torch's jit tracer needs from a dispatch mode, to record what it would record without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch

_CONVOLUTION: Final = torch.ops.aten.convolution.default


def run_traced(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The operator's result; a convolution is run so that the tracer sees it.

    The tracer does not record aten::convolution but the aten::_convolution that the eager kernel calls from
    it. Under a dispatch mode it does not see that call, and the meta kernel makes none; so it is made here.
    """
    if func is not _CONVOLUTION or torch._C._get_tracing_state() is None:
        return func(*args, **kwargs)
    tracer = torch._C._dispatch_key_parse("Tracer")
    included = torch._C._dispatch_tls_local_include_set().add(tracer)
    excluded = torch._C._dispatch_tls_local_exclude_set().remove(tracer)
    with torch._C._ForceDispatchKeyGuard(included, excluded):
        return torch.ops.aten._convolution.default(*args, False, False, False, False)
