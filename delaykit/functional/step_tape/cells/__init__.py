"""Synapses that read a line of cells, into which every input writes what it is at all delays: a few numbers each."""
