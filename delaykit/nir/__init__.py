"""The way out and back: networks with delays as graphs of the Neuromorphic Intermediate Representation (NIR).

A NIR graph has a node for each thing that hardware has: ``Linear`` and ``Affine`` connections, ``Delay`` lines,
neurons. What delaykit keeps inside one wrapped connection becomes several of them, exactly or not at all:

| delay of a connection | nodes |
|---|---|
| layer, axonal | ``Delay`` (one value a channel) -> the connection |
| dendritic | the connection without bias -> ``Delay`` -> + bias |
| synaptic, motif, any other response | one ``Delay`` -> masked ``Linear`` a distinct whole delay, or, where that is |
| | smaller, ``Linear`` (fan-out) -> ``Delay`` -> ``Linear`` |

A recurrent delay writes our d, never 1 + d: an edge that closes a circle costs the step by itself.
"""

from delaykit.nir.delay_nodes import DelayLine, node_map
from delaykit.nir.network import NIRNetwork
from delaykit.nir.reading import from_nir
from delaykit.nir.writing import to_nir

__all__ = ["DelayLine", "NIRNetwork", "from_nir", "node_map", "to_nir"]
