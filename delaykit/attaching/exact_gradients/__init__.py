"""Exact gradients at both ends of a connection: the neurons, what lies between, and who listens."""
