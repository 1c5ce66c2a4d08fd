"""Random numbers of a sequence: one draw for all its steps, another one for another shape, name or sequence."""

from __future__ import annotations

import threading

import torch

from delaykit.functional.draws import Draws, drawing, drawn

LIKE = torch.zeros(64)


def test_steps_of_a_sequence_share_their_draw_and_sequences_do_not() -> None:
    one: Draws = {}
    two: Draws = {}
    with drawing(one):
        first, again, other = drawn("rounding", LIKE), drawn("rounding", LIKE), drawn("dropout", LIKE)
        with drawing(two):
            inside = drawn("rounding", LIKE)
        assert torch.equal(drawn("rounding", LIKE), first)
    assert torch.equal(first, again) and not torch.equal(first, other) and not torch.equal(first, inside)
    assert not torch.equal(drawn("rounding", LIKE), drawn("rounding", LIKE))
    assert 0 <= first.min() and first.max() < 1


def test_another_shape_is_drawn_anew_and_another_precision_is_cast() -> None:
    with drawing({}):
        first = drawn("rounding", LIKE)
        assert torch.equal(drawn("rounding", LIKE.double()), first.double())
        assert drawn("rounding", torch.zeros(3)).shape == (3,)


def test_another_thread_has_draws_of_its_own() -> None:
    found: list[torch.Tensor] = []
    with drawing({}):
        first = drawn("rounding", LIKE)
        thread = threading.Thread(target=lambda: found.append(drawn("rounding", LIKE)))
        thread.start()
        thread.join()
    assert not torch.equal(found[0], first)
