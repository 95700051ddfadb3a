"""`track(overlap=True)`: what an optimizer owns is copied beside the next pass, and never torn."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.counting import count
from tests.frameworks.killing import Killed, Trial

from headway.checkpoint import staging
from headway.checkpoint.track import Tracker
from headway.model.errors import InputError

torch = pytest.importorskip("torch", reason="no PyTorch: `make frameworks` installs it")

pytestmark = [pytest.mark.frameworks, pytest.mark.reliability("R9")]

WIDTH = 256  # a layer is 256 KiB
STEPS = 8

Between = Callable[[Any, int], None]
"""Called before the forward pass of a step with the model and the step's number."""


class SlowCopies:
    """Copies in the background take long, each of them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.begun = threading.Event()
        self.count = 0
        for name in ("duplicate", "renew"):
            patch.setattr(staging, name, self._slow(getattr(staging, name)))

    def _slow(self, copy: Callable[..., Any]) -> Callable[..., Any]:
        def slow(*arguments: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                self.begun.set()
                time.sleep(0.02)
                self.count += 1
            return copy(*arguments)

        return slow


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> SlowCopies:
    return SlowCopies(monkeypatch)


def training(
    track: Callable[..., Any],
    kill: Callable[[], None] | None = None,
    stop: int | None = None,
    between: Between = lambda _, __: None,
) -> list[Any]:
    """The weights that a training ends with."""
    torch.manual_seed(5)
    model = torch.nn.Sequential(
        torch.nn.Linear(WIDTH, WIDTH), torch.nn.BatchNorm1d(WIDTH), torch.nn.Linear(WIDTH, WIDTH)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    state = track(overlap=True, model=model, optimizer=optimizer, losses=[])
    for number in state.range(STEPS):
        between(model, number)
        if kill is not None and number == stop:
            kill()
        optimizer.zero_grad()
        loss = model(torch.randn(16, WIDTH)).square().mean()
        loss.backward()
        optimizer.step()
        state.losses.append(loss.item())
    return [state.losses, *(each.clone() for each in model.state_dict().values())]


def same(one: list[Any], other: list[Any]) -> bool:
    return one[0] == other[0] and all(map(torch.equal, one[1:], other[1:]))


def test_a_killed_training_ends_with_the_same_weights(slow: SlowCopies) -> None:
    wanted = Trial().attempt(training)
    kills = 0
    for stop in range(1, STEPS):
        trial = Trial()
        for at in (stop, min(stop + 2, STEPS - 1)):
            with pytest.raises(Killed):
                trial.attempt(functools.partial(training, kill=trial.kill, stop=at))
            kills += 1
        assert same(trial.attempt(training), wanted), stop
        assert trial.warnings == []
    assert slow.count > 50, "the copies were made beside the passes"
    count("R9", "interrupted attempts of frameworks", kills)


def test_a_step_waits_for_the_copy(slow: SlowCopies, monkeypatch: pytest.MonkeyPatch) -> None:
    waited = []
    wait = Tracker._wait_copied

    def counted(tracker: Tracker) -> None:
        handle = tracker._handle
        before = handle is not None and not handle._copied.is_set()  # type: ignore[union-attr]
        wait(tracker)
        waited.append(before)
        assert handle is None or handle._copied.is_set()  # type: ignore[union-attr]

    monkeypatch.setattr(Tracker, "_wait_copied", counted)
    Trial().attempt(training)
    assert len(waited) == STEPS
    assert any(waited)


def test_a_step_that_did_not_wait_would_be_found(
    slow: SlowCopies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tracker, "_wait_copied", lambda _: None)
    trial = Trial()
    wanted = trial.attempt(training)
    assert trial.warnings == ["unsaved"], "after the first it copies before it goes on"
    monkeypatch.undo()
    assert same(Trial().attempt(training), wanted)


def test_the_marks_are_looked_at_only_when_all_is_copied(slow: SlowCopies) -> None:
    def edit(model: Any, number: int) -> None:
        if number == 3:
            with torch.no_grad():
                model[2].weight[:1, :1] += 1.0  # one number: no sample is of it

    trial = Trial()
    wanted = trial.attempt(lambda track: training(track, between=edit))
    assert trial.warnings == ["unsaved"]
    trial = Trial()
    with pytest.raises(Killed):
        trial.attempt(lambda track: training(track, trial.kill, 6, edit))
    assert same(trial.attempt(lambda track: training(track, between=edit)), wanted)


@pytest.mark.parametrize("layer", [0, 2])
def test_weights_that_are_exchanged_behind_pytorchs_back_are_found(
    slow: SlowCopies, layer: int
) -> None:
    other = torch.randn(WIDTH, WIDTH)

    def exchange(model: Any, number: int) -> None:
        if number == 3:
            slow.begun.clear()
            model[layer].weight.data.copy_(other)

    trial = Trial()
    wanted = trial.attempt(lambda track: training(track, between=exchange))
    assert trial.warnings == ["unsaved"]
    trial = Trial()
    with pytest.raises(Killed):
        trial.attempt(lambda track: training(track, trial.kill, 3, lambda *_: None))
    trial = Trial()
    with pytest.raises(Killed):
        trial.attempt(lambda track: training(track, trial.kill, 5, exchange))
    assert same(trial.attempt(lambda track: training(track, between=exchange)), wanted)


def test_an_optimizer_has_to_be_tracked() -> None:
    with pytest.raises(InputError, match="no PyTorch optimizer is tracked"):
        Trial().attempt(lambda track: track(overlap=True, model=torch.nn.Linear(2, 2)))


def test_an_optimizer_has_to_call_hooks() -> None:
    class Own(torch.optim.SGD):  # type: ignore[misc, name-defined]
        pass

    layer = torch.nn.Linear(2, 2)
    optimizer = Own(layer.parameters(), lr=0.1)
    Own.step = lambda self, closure=None: None
    with pytest.raises(InputError, match="Own does not call the hooks"):
        Trial().attempt(lambda track: track(overlap=True, optimizer=optimizer))


def test_weights_that_share_memory_are_copied_at_once() -> None:
    def body(track: Callable[..., Any]) -> Any:
        whole = torch.zeros(2, WIDTH, WIDTH)
        halves = [torch.nn.Parameter(whole[0]), torch.nn.Parameter(whole[1])]
        optimizer = torch.optim.SGD([halves[0]], lr=0.5)
        state = track(overlap=True, optimizer=optimizer, halves=list(halves))
        for _ in state.range(4):
            with torch.no_grad():
                halves[1].data.add_(1.0)
            optimizer.zero_grad()
            halves[0].sum().backward()
            optimizer.step()
        return [float(half.detach().sum()) for half in halves]

    trial = Trial()
    assert trial.attempt(body) == [-2.0 * WIDTH * WIDTH, 4.0 * WIDTH * WIDTH]
    assert trial.warnings == []
