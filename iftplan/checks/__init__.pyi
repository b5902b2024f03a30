from .assertions import flop_budget as flop_budget
from .assertions import iso_flop as iso_flop
