"""Mask structures as values: what a mask may look like, its exact counts, and how many there are.

Shapes are (inputs m, outputs n).
"""

from iftplan.masks.attention.band import Band
from iftplan.masks.attention.block_map import BlockMap
from iftplan.masks.attention.decoders import DecoderSizes, iso_flop_density
from iftplan.masks.attention.notation import parse_attention
from iftplan.masks.attention.pattern import AttentionPattern, TopK
from iftplan.masks.attention.product import AttentionCall, AttentionPairs
from iftplan.masks.cardinality import Cardinality
from iftplan.masks.notation import parse_mask
from iftplan.masks.spectra import Graph, Spectrum
from iftplan.masks.stacks import stack_close, stack_counts, stack_log2_masks
from iftplan.masks.structure import MaskStructure, Matrices
from iftplan.masks.structures.block import Block
from iftplan.masks.structures.channel import Channel
from iftplan.masks.structures.fan_in import ConstantFanIn
from iftplan.masks.structures.n_m import NM
from iftplan.masks.structures.unstructured import Unstructured

__all__ = [
    "NM",
    "AttentionCall",
    "AttentionPairs",
    "AttentionPattern",
    "Band",
    "Block",
    "BlockMap",
    "Cardinality",
    "Channel",
    "ConstantFanIn",
    "DecoderSizes",
    "Graph",
    "MaskStructure",
    "Matrices",
    "Spectrum",
    "TopK",
    "Unstructured",
    "iso_flop_density",
    "parse_attention",
    "parse_mask",
    "stack_close",
    "stack_counts",
    "stack_log2_masks",
]
