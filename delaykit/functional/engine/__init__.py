"""The former place of :mod:`delaykit.functional.engine_base`, whose names are found here, too."""

from delaykit.functional.engine_base import Engine as Engine
from delaykit.functional.engine_base import SegmentParameters as SegmentParameters
from delaykit.functional.engine_base import Stepper as Stepper
from delaykit.functional.engine_base import bits_of as bits_of
from delaykit.functional.engine_base import computes_with as computes_with
from delaykit.functional.engine_base import frozen as frozen
from delaykit.functional.engine_base import memory_comparison as memory_comparison
from delaykit.functional.engine_base import same_bytes as same_bytes
from delaykit.functional.engine_base import same_values as same_values
from delaykit.functional.engine_base import version_of as version_of
