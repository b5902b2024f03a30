from .measure import count_jaxpr as count_jaxpr
from .measure import measure as measure
from .read import read_model as read_model

__all__ = ["count_jaxpr", "measure", "read_model"]
