"""A wrapped connection: its mixin, one call of it, sequences in pieces, and the loop of a neuron that had none."""
