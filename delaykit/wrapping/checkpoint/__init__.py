"""Checkpoints: what delaykit added to a model, in a file that is read without unpickling anything."""
