from .config import HetSyn as HetSyn
from .connection import Connection as Connection
from .layer import HetSynLIF as HetSynLIF
from .layer import attach as attach
from .layer import param_groups as param_groups
from .layer import project_ as project_
from .models import MODELS as MODELS
from .models import Answer as Answer
from .models import HetSynNet as HetSynNet
from .models import Neurons as Neurons
from .models import make_layer as make_layer
from .plotting import answer as answer
from .plotting import membranes as membranes
from .plotting import tau_histogram as tau_histogram
from .regularise import rate_penalty as rate_penalty
from .reset_currents import AdaptationCurrent as AdaptationCurrent
from .reset_currents import ResetCurrent as ResetCurrent
from .reset_currents import SelfCurrent as SelfCurrent
from .reset_currents import ZeroReset as ZeroReset
from .rollout import rollout as rollout
from .surrogates import MultiGaussian as MultiGaussian
from .surrogates import Surrogate as Surrogate
from .surrogates import Triangle as Triangle
from .time_constants import decay_of as decay_of
from .time_constants import draw as draw
from .time_constants import tau_of as tau_of

__version__: str
