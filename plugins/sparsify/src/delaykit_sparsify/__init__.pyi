from .compact import Compacted as Compacted
from .compact import CompactReport as CompactReport
from .compact import compact_ as compact_
from .compact_parts import CompactDelay as CompactDelay
from .compact_parts import CompactLinear as CompactLinear
from .config import DynamicSparsity as DynamicSparsity
from .delay_pruning import DelayPruning as DelayPruning
from .delay_pruning import PrunedDelays as PrunedDelays
from .graphs import Connectivity as Connectivity
from .graphs import connectivity as connectivity
from .graphs import kept_by_delay as kept_by_delay
from .pruning import DynamicPruning as DynamicPruning
from .report import ParameterReport as ParameterReport
from .report import SiteParameters as SiteParameters
from .report import Turnover as Turnover
from .report import masks as masks
from .report import parameter_report as parameter_report
from .report import published_count as published_count
from .report import turnover as turnover
from .sparse import Arrivals as Arrivals
from .sparse import SparseSynapses as SparseSynapses
from .sparse import sparse_filter as sparse_filter
from .sparsifier import Sparsifier as Sparsifier
from .sparsifier import connection_weights as connection_weights

__version__: str
