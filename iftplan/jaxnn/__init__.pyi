from .application.apply import apply as apply
from .application.audit import audit as audit
from .application.audit import measure_applied as measure_applied

__all__ = ["apply", "audit", "measure_applied"]
