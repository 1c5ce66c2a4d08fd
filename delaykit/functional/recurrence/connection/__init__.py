"""A recurrent connection, step by step, forwards and backwards."""

from delaykit.functional.recurrence.connection.base import Fading, Inputs, RecurrentConnection, SparseTaps

Connection = RecurrentConnection  # its former name

__all__ = ["Connection", "Fading", "Inputs", "RecurrentConnection", "SparseTaps"]
