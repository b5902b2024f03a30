from .application.apply import apply as apply
from .application.audit import audit as audit
from .application.audit import measure_applied as measure_applied
from .counting.measure import count_jaxpr as count_jaxpr
from .counting.measure import measure as measure
from .masking.algorithms import SET as SET
from .masking.algorithms import SRSTE as SRSTE
from .masking.algorithms import STE as STE
from .masking.algorithms import Gradual as Gradual
from .masking.algorithms import RigL as RigL
from .masking.algorithms import Static as Static
from .masking.drawing import draw_masks as draw_masks
from .masking.jaxpruner import sparsity_distribution as sparsity_distribution
from .masking.leaves import apply_masks as apply_masks
from .masking.ledger import TrainingLedger as TrainingLedger
from .masking.state import MaskedState as MaskedState
from .masking.transformation import with_masks as with_masks
from .reading.read import read_model as read_model

__all__ = [
    "SET",
    "SRSTE",
    "STE",
    "Gradual",
    "MaskedState",
    "RigL",
    "Static",
    "TrainingLedger",
    "apply",
    "apply_masks",
    "audit",
    "count_jaxpr",
    "draw_masks",
    "measure",
    "measure_applied",
    "read_model",
    "sparsity_distribution",
    "with_masks",
]
