"""Run in a process of its own, without delaykit: Brian2 with one delay a synapse, as the taps of a file say.

The file is ``input -> (delay -> masked linear or Conv1d) a tap -> LIF -> output``; every weight that is not zero
becomes a synapse of Brian2 with the delay of its tap (a kernel's at each of its places), and spikes go in and out
through Brian2's own generators and monitors.
"""

import importlib.machinery
import importlib.util
import sys

import numpy as np

NOT_HERE = 77  # what this process returns where a package is missing
UNITS = "brian2.units.fundamentalunits"


class Mended(importlib.machinery.SourceFileLoader):
    """Brian2 2.9, the last one for Python 3.11, asks for the method ``ptp``, which numpy 2.4 has as a function only."""

    def get_code(self, fullname):
        return compile(self.get_source(fullname).replace("np.ndarray.ptp", "np.ptp"), self.path, "exec")


class Mending(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        if fullname != UNITS:
            return None
        found = super().find_spec(fullname, path, target)
        return importlib.util.spec_from_file_location(fullname, found.origin, loader=Mended(fullname, found.origin))


if not hasattr(np.ndarray, "ptp"):
    sys.meta_path.insert(0, Mending)
try:
    import brian2 as b
    import nir
except ModuleNotFoundError as error:
    print(error, file=sys.stderr)
    sys.exit(NOT_HERE)


def matrix(node):
    """Write a connection as (post, pre), a convolution place by place."""
    if not isinstance(node, nir.Conv1d):
        return node.weight
    (outputs, long), (inputs, short) = node.output_type["output"], node.input_type["input"]
    out = np.zeros((outputs, long, inputs, short))
    for place in range(long):
        for k in range(node.weight.shape[2]):
            where = place * node.stride + k * node.dilation - node.padding
            if 0 <= where < short:
                out[:, place, :, where] += node.weight[:, :, k]
    return out.reshape(outputs * long, inputs * short)


b.prefs.codegen.target = "numpy"
path, given, out, dt = sys.argv[1:]
graph, spikes, dt = nir.read(path), np.load(given), float(dt)
b.defaultclock.dt = dt * b.second
lif = next(node for node in graph.nodes.values() if isinstance(node, nir.LIF))
tau, r, level, back = (x.flatten() for x in (lif.tau, lif.r, lif.v_threshold, lif.v_reset))
time, pre = spikes.shape
when, who = np.nonzero(spikes)
source = b.SpikeGeneratorGroup(pre, who, when * dt * b.second)
neurons = b.NeuronGroup(
    len(tau),
    "v : 1\nI : 1\nkeep : 1 (constant)\ngain : 1 (constant)\nlevel : 1 (constant)\nback : 1 (constant)",
    threshold="v > level",
    reset="v = back",
)
for event in neurons.thresholder.values():
    event.when = "resets"
    event.order = -1
neurons.keep, neurons.gain = 1 - dt / tau, dt / tau * r
neurons.level, neurons.back = level, back
synapses = b.Synapses(source, neurons, "w : 1", on_pre="I_post += w")
pres, posts, weights, delays = [], [], [], []
for name, node in graph.nodes.items():
    if isinstance(node, (nir.Linear, nir.Affine, nir.Conv1d)):
        line = [graph.nodes[a] for a, end in graph.edges if end == name and isinstance(graph.nodes[a], nir.Delay)]
        weight = matrix(node)
        post, own = np.nonzero(weight)
        pres, posts = [*pres, *own], [*posts, *post]
        weights = [*weights, *weight[post, own]]
        delays = [*delays, *(line[0].delay.flatten()[own] if line else np.zeros(len(own)))]
synapses.connect(i=np.array(pres), j=np.array(posts))
synapses.w, synapses.delay = np.array(weights), np.array(delays) * b.second
neurons.run_regularly("v = keep * v + gain * I; I = 0", when="groups")
monitor = b.SpikeMonitor(neurons)
net = b.Network(source, neurons, synapses, monitor)
net.schedule = ["start", "thresholds", "synapses", "groups", "resets", "end"]  # input fires, arrives, is integrated
net.run(time * dt * b.second)
raster = np.zeros((time, len(tau)))
raster[np.round(np.array(monitor.t / b.second) / dt).astype(int), np.array(monitor.i)] = 1
np.save(out, raster)
