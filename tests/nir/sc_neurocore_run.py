"""Run in a process of its own, without delaykit: sc-neurocore reads a file and steps it."""

import sys

import numpy as np

try:
    from sc_neurocore.nir_bridge import from_nir
except ModuleNotFoundError as error:
    print(error, file=sys.stderr)
    sys.exit(77)  # a package is missing

graph, given, out, dt, reset = sys.argv[1:]
network = from_nir(graph, dt=float(dt), reset_mode=reset)
steps = [network.step({network.input_nodes[0]: x})[network.output_nodes[0]] for x in np.load(given)]
np.save(out, np.stack(steps))
