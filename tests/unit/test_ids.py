"""Run ids: short, and in the order in which the runs began."""

from __future__ import annotations

from headway.model.ids import is_run_id, new_run_id

NOON = 1_795_608_000.0


def test_of_two_runs_the_later_has_the_later_id_within_a_second_too() -> None:
    instants = [NOON + 0.002 * step for step in range(2000)]
    ids = [new_run_id(instant) for instant in instants]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)


def test_runs_of_one_instant_have_ids_of_their_own() -> None:
    assert len({new_run_id(NOON) for _ in range(200)}) > 100


def test_an_id_is_of_the_form_that_is_recognised() -> None:
    for instant in (0.0, 1_704_067_200.0, NOON, 2_700_000_000.0):
        assert is_run_id(new_run_id(instant))
    assert not is_run_id("1tq4zk-8f3") and not is_run_id("1tq4zu-8f3d")
