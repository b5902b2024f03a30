from .units import Convention as Convention
from .units import short as short
