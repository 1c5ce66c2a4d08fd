"""A recurrent connection, step by step, forwards and backwards."""

from delaykit.functional.recurrence.connection.base import RecurrentConnection

Connection = RecurrentConnection  # its former name

__all__ = ["RecurrentConnection"]
