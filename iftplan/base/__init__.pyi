from .units import Convention as Convention
from .units import abbreviate as abbreviate
