"""All code that speaks to LLVM: what Numba's own loops cannot do fast enough, in vector registers.

Delete this folder, and nothing but speed is lost: operators' files ``numba.py``, which alone import from it, go on with
Numba's plain loops, or with torch where there are none.

- ``rows``, for ``delayed_linear`` and ``step_tape``: a neuron's sequence is one row of numbers, a delay an offset.
- ``adjacent_taps``, for ``delay_line``: channels whose taps lie next to each other.
- ``polynomials``, for ``step_tape``: gaussians, by cells of delays.
- ``recurrence``, for ``recurrence``: synapses of two cells each, and histories that are read through lists of taps.
- ``registers``: arrays by whole vectors, for all of them.
"""
