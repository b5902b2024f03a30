"""The only part of iftplan that imports torch: reading, building, measuring and applying plans to networks.

Names are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iftplan.nn.application.apply import apply, apply_
    from iftplan.nn.application.audit import measure_applied
    from iftplan.nn.application.forward_scales import forward_scales
    from iftplan.nn.application.scales import parameter_groups
    from iftplan.nn.callbacks.lightning import LightningMasking
    from iftplan.nn.callbacks.trainer import TrainerMasking
    from iftplan.nn.counting.training_step import StepMacs, measure_step
    from iftplan.nn.execution.compaction import compact_, expand_
    from iftplan.nn.execution.execute import dense_gradients_, execute_dense_, execute_sparse_
    from iftplan.nn.export.condensed import condense
    from iftplan.nn.export.finalize import densify, finalize
    from iftplan.nn.export.tensor_cores import semi_structured
    from iftplan.nn.masking.algorithms.base import Order
    from iftplan.nn.masking.algorithms.gradual import Gradual
    from iftplan.nn.masking.algorithms.iterative import Iterative
    from iftplan.nn.masking.algorithms.mask_decay import MaskDecay
    from iftplan.nn.masking.algorithms.rigl import RigL
    from iftplan.nn.masking.algorithms.saliency import Saliency
    from iftplan.nn.masking.algorithms.set import SET
    from iftplan.nn.masking.algorithms.srigl import SRigL
    from iftplan.nn.masking.algorithms.srste import SRSTE
    from iftplan.nn.masking.algorithms.static import Static
    from iftplan.nn.masking.algorithms.ste import STE
    from iftplan.nn.masking.algorithms.structure_decay import StructureDecay
    from iftplan.nn.masking.algorithms.transposable import Transposable
    from iftplan.nn.masking.averages import follow_
    from iftplan.nn.masking.loading import load_masked_, mask_zeros_
    from iftplan.nn.masking.masking import Masking
    from iftplan.nn.masking.step_masks import layer_counts, weights_by_layer
    from iftplan.nn.masks.masked_weights import enforce_, masked_weights
    from iftplan.nn.reading.read import read_model
    from iftplan.nn.sources import build
    from iftplan.nn.warmstart.net2wider import Widened, widened
    from iftplan.nn.warmstart.start import WarmStart, warm_start_

_HOMES = {
    "Gradual": "masking.algorithms.gradual",
    "Iterative": "masking.algorithms.iterative",
    "LightningMasking": "callbacks.lightning",
    "MaskDecay": "masking.algorithms.mask_decay",
    "Masking": "masking.masking",
    "Order": "masking.algorithms.base",
    "RigL": "masking.algorithms.rigl",
    "SET": "masking.algorithms.set",
    "SRSTE": "masking.algorithms.srste",
    "SRigL": "masking.algorithms.srigl",
    "STE": "masking.algorithms.ste",
    "Saliency": "masking.algorithms.saliency",
    "Static": "masking.algorithms.static",
    "StepMacs": "counting.training_step",
    "StructureDecay": "masking.algorithms.structure_decay",
    "TrainerMasking": "callbacks.trainer",
    "Transposable": "masking.algorithms.transposable",
    "WarmStart": "warmstart.start",
    "Widened": "warmstart.net2wider",
    "apply": "application.apply",
    "apply_": "application.apply",
    "build": "sources",
    "condense": "export.condensed",
    "dense_gradients_": "execution.execute",
    "densify": "export.finalize",
    "enforce_": "masks.masked_weights",
    "compact_": "execution.compaction",
    "execute_dense_": "execution.execute",
    "execute_sparse_": "execution.execute",
    "expand_": "execution.compaction",
    "finalize": "export.finalize",
    "follow_": "masking.averages",
    "forward_scales": "application.forward_scales",
    "layer_counts": "masking.step_masks",
    "load_masked_": "masking.loading",
    "mask_zeros_": "masking.loading",
    "masked_weights": "masks.masked_weights",
    "measure_applied": "application.audit",
    "measure_step": "counting.training_step",
    "parameter_groups": "application.scales",
    "read_model": "reading.read",
    "semi_structured": "export.tensor_cores",
    "warm_start_": "warmstart.start",
    "weights_by_layer": "masking.step_masks",
    "widened": "warmstart.net2wider",
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
