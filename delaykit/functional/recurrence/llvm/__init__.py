"""What Numba's own loops cannot do fast enough, in vector registers. Delete this folder, and only speed is lost."""

from delaykit.functional.recurrence.llvm.grid import ringed, tents_connection
from delaykit.functional.recurrence.llvm.vector import vector_read

__all__ = ["ringed", "tents_connection", "vector_read"]
