from .discrete import SpikeTimeReport as SpikeTimeReport
from .discrete import compare as compare
from .discrete import to_discrete as to_discrete
from .discrete import to_events as to_events
from .dynamics import Dynamics as Dynamics
from .dynamics import TimingDynamics as TimingDynamics
from .dynamics import membrane_response as membrane_response
from .encoders import first_spike_encode as first_spike_encode
from .encoders import latency_encode as latency_encode
from .events import Events as Events
from .events import from_raster as from_raster
from .events import from_tonic as from_tonic
from .events import to_raster as to_raster
from .layer import MultiSpikeLIF as MultiSpikeLIF
from .layer import PotentialReadout as PotentialReadout
from .losses import first_spike_hinge as first_spike_hinge
from .losses import output_norm as output_norm
from .losses import potential_cross_entropy as potential_cross_entropy
from .losses import spike_count_penalty as spike_count_penalty
from .losses import wanted_direction as wanted_direction
from .network import TimingNet as TimingNet
from .network import TimingOutput as TimingOutput
from .network import project_after_steps as project_after_steps
from .operator import SpikeTimes as SpikeTimes
from .operator import spike_times as spike_times
from .traces import membrane_trace as membrane_trace

__version__: str
