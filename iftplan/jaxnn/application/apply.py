"""Apply a plan to a JAX model."""

from __future__ import annotations

from typing import Any, cast

from iftplan.base.arguments import check_arguments
from iftplan.jaxnn.application.members import Inside
from iftplan.jaxnn.application.structure import dense_model, structured
from iftplan.plans.plan import Plan


@check_arguments
def apply(plan: Plan, model: object, *arguments: object, inside: object = None, seed: int = 0) -> Any:
    """A new model with the plan's widths, branches and factors; `model` is not changed.

    Masks are no part of it: JAX keeps them beside the weights, as a pytree. A module of `flax.linen` stays without
    weights, and those of its `init` have the names that they had, members' inside the layer's. In modules of `flax.nnx`
    and of Equinox, members begin with new weights, and all else keeps its values.

    Args:
        plan: what to build.
        model: the dense model that the plan was made for: a module of Flax or Equinox; or the function that builds it,
            whose arguments then are the plan's widths.
        *arguments: what the model is called with; by default those that the function returns beside it, or else the
            plan's inputs.
        inside: what stands inside members: channels → a function or a module of the same library, such as
            `lambda channels: jax.nn.relu` (arXiv 2303.11525, section 3.1); None for nothing.
        seed: of new weights in `flax.nnx` and Equinox.

    Raises:
        StaleError: the plan was made for another model.
        InfeasibleError: the model cannot be built at other widths, or a layer cannot be replaced.
        MeasureError: the plan is in a family without members for JAX.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import iftplan as ift
        >>> from flax import linen
        >>> net = linen.Sequential([linen.Dense(16), linen.Dense(16), linen.Dense(4)])
        >>> x = jax.ShapeDtypeStruct((2, 8), jnp.float32)
        >>> plan = ift.plan(ift.read_model(net, x), "parallel", "3/4")
        >>> variables = jax.eval_shape(ift.jaxnn.apply(plan, net).init, jax.random.key(0), x)
        >>> sorted(variables["params"]["layers_1"])
        ['branches_0', 'branches_1', 'branches_2', 'branches_3']
    """
    dense = dense_model(plan, model, arguments, values=True)
    return structured(plan, dense, cast("Inside | None", inside), seed)[0]
