"""Mask structures as values: what a mask may look like, its exact counts, and how many there are.

Shapes are (inputs m, outputs n).
"""

from iftplan.masks.neurons import Channel, ConstantFanIn
from iftplan.masks.notation import parse_mask
from iftplan.masks.patterns import NM, Block
from iftplan.masks.stacks import stack_close, stack_counts, stack_log2_masks
from iftplan.masks.structure import MaskStructure, Matrices, Unstructured

__all__ = [
    "NM",
    "Block",
    "Channel",
    "ConstantFanIn",
    "MaskStructure",
    "Matrices",
    "Unstructured",
    "parse_mask",
    "stack_close",
    "stack_counts",
    "stack_log2_masks",
]
