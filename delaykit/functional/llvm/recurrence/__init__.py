"""Kernels of recurrent connections whose delays are read or written two cells a synapse, in vector registers."""
