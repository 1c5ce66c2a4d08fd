"""Readers: one file a data format. They return numpy arrays and know nothing of networks."""
