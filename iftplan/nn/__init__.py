"""The only part of iftplan that imports torch: reading, building, measuring and applying plans to networks.

Names are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iftplan.nn.application import apply, apply_
    from iftplan.nn.applied_audit import measure_applied
    from iftplan.nn.callbacks.lightning import LightningMasking
    from iftplan.nn.callbacks.trainer import TrainerMasking
    from iftplan.nn.condensed import condense
    from iftplan.nn.execution.compact import compact_, expand_
    from iftplan.nn.execution.modules import dense_gradients_, execute_dense_, execute_sparse_
    from iftplan.nn.finalization import densify, finalize
    from iftplan.nn.finetuning import load_masked_, mask_zeros_
    from iftplan.nn.gradients import StepMacs, measure_step
    from iftplan.nn.masking.algorithm import Order
    from iftplan.nn.masking.averages import follow_
    from iftplan.nn.masking.gradual import Gradual
    from iftplan.nn.masking.iterative import Iterative
    from iftplan.nn.masking.mask_decay import MaskDecay
    from iftplan.nn.masking.masking import Masking
    from iftplan.nn.masking.rigl import RigL
    from iftplan.nn.masking.saliency import Saliency
    from iftplan.nn.masking.set import SET
    from iftplan.nn.masking.srigl import SRigL
    from iftplan.nn.masking.srste import SRSTE
    from iftplan.nn.masking.static import Static
    from iftplan.nn.masking.ste import STE
    from iftplan.nn.masking.structure_decay import StructureDecay
    from iftplan.nn.masking.taken import layer_counts, weights_by_layer
    from iftplan.nn.masking.transposable import Transposable
    from iftplan.nn.masks import enforce_, masked_weights
    from iftplan.nn.multipliers import forward_scales
    from iftplan.nn.net2wider import Widened, widened
    from iftplan.nn.parametrize import parameter_groups
    from iftplan.nn.sources import build
    from iftplan.nn.tensor_cores import semi_structured
    from iftplan.nn.trace import read_model
    from iftplan.nn.warmstart import WarmStart, warm_start_

_HOMES = {
    "Gradual": "masking.gradual",
    "Iterative": "masking.iterative",
    "LightningMasking": "callbacks.lightning",
    "MaskDecay": "masking.mask_decay",
    "Masking": "masking.masking",
    "Order": "masking.algorithm",
    "RigL": "masking.rigl",
    "SET": "masking.set",
    "SRSTE": "masking.srste",
    "SRigL": "masking.srigl",
    "STE": "masking.ste",
    "Saliency": "masking.saliency",
    "Static": "masking.static",
    "StepMacs": "gradients",
    "StructureDecay": "masking.structure_decay",
    "TrainerMasking": "callbacks.trainer",
    "Transposable": "masking.transposable",
    "WarmStart": "warmstart",
    "Widened": "net2wider",
    "apply": "application",
    "apply_": "application",
    "build": "sources",
    "condense": "condensed",
    "dense_gradients_": "execution.modules",
    "densify": "finalization",
    "enforce_": "masks",
    "compact_": "execution.compact",
    "execute_dense_": "execution.modules",
    "execute_sparse_": "execution.modules",
    "expand_": "execution.compact",
    "finalize": "finalization",
    "follow_": "masking.averages",
    "forward_scales": "multipliers",
    "layer_counts": "masking.taken",
    "load_masked_": "finetuning",
    "mask_zeros_": "finetuning",
    "masked_weights": "masks",
    "measure_applied": "applied_audit",
    "measure_step": "gradients",
    "parameter_groups": "parametrize",
    "read_model": "trace",
    "semi_structured": "tensor_cores",
    "warm_start_": "warmstart",
    "weights_by_layer": "masking.taken",
    "widened": "net2wider",
}

__all__ = [
    "SET",
    "SRSTE",
    "STE",
    "Gradual",
    "Iterative",
    "LightningMasking",
    "MaskDecay",
    "Masking",
    "Order",
    "RigL",
    "SRigL",
    "Saliency",
    "Static",
    "StepMacs",
    "StructureDecay",
    "TrainerMasking",
    "Transposable",
    "WarmStart",
    "Widened",
    "apply",
    "apply_",
    "build",
    "compact_",
    "condense",
    "dense_gradients_",
    "densify",
    "enforce_",
    "execute_dense_",
    "execute_sparse_",
    "expand_",
    "finalize",
    "follow_",
    "forward_scales",
    "layer_counts",
    "load_masked_",
    "mask_zeros_",
    "masked_weights",
    "measure_applied",
    "measure_step",
    "parameter_groups",
    "read_model",
    "semi_structured",
    "warm_start_",
    "weights_by_layer",
    "widened",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'iftplan.nn' has no attribute {name!r}")
    return getattr(import_module(f"iftplan.nn.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
