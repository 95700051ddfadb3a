"""What each way for an attempt to end is called."""

from __future__ import annotations

import signal

import pytest

from headway.engine.outcome import classify
from headway.model.outcome import Outcome
from headway.model.program import Died, Raised, Returned

RAISED = Raised("app error", "ValueError", "no such digit", "Traceback …")


def test_a_returned_value_is_a_success_even_when_it_was_told_to_leave() -> None:
    for why in (None, "timeout", "cancelled", "leaving"):
        assert classify(Returned({"o0": 1}, clean=True), why) == (Outcome.SUCCEEDED, "", "")


@pytest.mark.parametrize("outcome", [o for o in Outcome if o is not Outcome.SUCCEEDED])
def test_an_exception_is_what_the_worker_says_it_is(outcome: Outcome) -> None:
    raised = Raised(outcome.value, "ValueError", "no such digit", "Traceback …")
    assert classify(raised) == (outcome, "ValueError: no such digit", "Traceback …")


def test_an_exception_without_a_message_is_its_type() -> None:
    assert classify(Raised("oom", "MemoryError", "", ""))[1] == "MemoryError"


@pytest.mark.parametrize("kind", ["succeeded", "something of a later release"])
def test_an_exception_is_never_a_success(kind: str) -> None:
    assert classify(Raised(kind, "E", "", ""))[0] is Outcome.APP_ERROR


@pytest.mark.parametrize(
    ("why", "outcome"),
    [
        ("timeout", Outcome.TIMEOUT),
        ("cancelled", Outcome.CANCELLED),
        ("leaving", Outcome.PREEMPTED),
    ],
)
def test_why_we_stopped_it_wins_over_how_it_looked(why: str, outcome: Outcome) -> None:
    for message in (RAISED, Died(-signal.SIGKILL), Died(-signal.SIGTERM), Died(1), Died(0)):
        found, text, _ = classify(message, why)
        assert found is outcome
        assert text
    assert classify(RAISED, why)[2] == "Traceback …"


@pytest.mark.parametrize(
    ("code", "outcome", "words"),
    [
        (-signal.SIGKILL, Outcome.KILLED, "killed from outside (SIGKILL)"),
        (-signal.SIGTERM, Outcome.PREEMPTED, "told to go (SIGTERM)"),
        (-signal.SIGHUP, Outcome.KILLED, "SIGHUP"),
        (-signal.SIGINT, Outcome.KILLED, "SIGINT"),
        (-signal.SIGSEGV, Outcome.APP_ERROR, "died of SIGSEGV (Segmentation fault)"),
        (-signal.SIGABRT, Outcome.APP_ERROR, "died of SIGABRT"),
        (-signal.SIGBUS, Outcome.APP_ERROR, "died of SIGBUS"),
        (-40, Outcome.APP_ERROR, "died of signal 40"),
        (3, Outcome.APP_ERROR, "exit code 3"),
        (0, Outcome.APP_ERROR, "exit code 0 before the body returned"),
    ],
)
def test_a_process_that_ended_without_a_word(code: int, outcome: Outcome, words: str) -> None:
    found, text, traceback = classify(Died(code))
    assert found is outcome
    assert words in text
    assert traceback == ""
