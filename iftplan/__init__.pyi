from . import base as base
from . import checks as checks
from . import families as families
from . import jaxnn as jaxnn
from . import masks as masks
from . import models as models
from . import nn as nn
from . import plans as plans
from . import plots as plots
from . import runs as runs
from .api import audit as audit
from .api import load as load
from .api import plan as plan
from .api import read_model as read_model
from .api import save as save
from .api import solve as solve
from .base.errors import IftplanError as IftplanError
from .base.errors import InfeasibleError as InfeasibleError
from .base.errors import InputError as InputError
from .base.errors import MeasureError as MeasureError
from .base.errors import StaleError as StaleError
from .families.derivation import family as family

__version__: str
