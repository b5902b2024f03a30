from .units import short as short
