from .config import DelRec as DelRec
from .dcls import DCLS as DCLS
from .history import DelayHistory as DelayHistory
from .plotting import bounds_curve as bounds_curve
from .plotting import delay_evolution as delay_evolution
from .plotting import movement_curve as movement_curve
from .plotting import spread_curve as spread_curve
from .published import Published as Published
from .published import load_published_ as load_published_
from .published import read_published as read_published
from .recipes import RECIPES as RECIPES
from .recipes import Recipe as Recipe
from .recipes import spike_penalty as spike_penalty
from .rounding import Gap as Gap
from .rounding import discretization_gap as discretization_gap

__version__: str
