from . import checkpoints as checkpoints
from . import states as states
