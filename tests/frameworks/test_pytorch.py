"""PyTorch under `track`: whatever instant a training ends at, it ends with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.frameworks.killing import Example, Trial, added_lines

from headway.model.errors import InputError

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),  # of loaders with workers
]
EXAMPLE = "with_pytorch"


def example(**arguments: int) -> Example:
    torch = pytest.importorskip("torch", reason="no PyTorch: `make frameworks` installs it")
    return Example(EXAMPLE, torch.manual_seed, **arguments)


def test_three_lines_are_added() -> None:
    assert len(added_lines(EXAMPLE)) == 3


@pytest.mark.reliability("R9")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_training_ends_with_the_same_weights(workers: int) -> None:
    example(epochs=3, workers=workers).check()


@pytest.mark.reliability("R9")
def test_a_training_whose_worker_gets_sigkill_ends_with_the_same_weights(tmp_path: Path) -> None:
    example(epochs=4, workers=0).check_signal(tmp_path)


@pytest.mark.reliability("R9")
@pytest.mark.filterwarnings("ignore:.*set_vital:UserWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_loader_goes_on_within_its_epoch(workers: int) -> None:
    torch = pytest.importorskip("torch")
    reason = "no torchdata: `make frameworks` installs it"
    loaders = pytest.importorskip("torchdata.stateful_dataloader", reason=reason)

    def attempt(trial: Trial, stop: int | None) -> Any:
        def body(track: Any) -> Any:
            torch.manual_seed(3)
            loader = loaders.StatefulDataLoader(
                list(range(20)), batch_size=4, shuffle=True, num_workers=workers
            )
            state = track(seen=[], order=loader.sampler.generator)
            for _ in state.range(3):
                for batch in state.iterate(loader):
                    if len(state.seen) == stop:
                        trial.kill()
                    state.seen.append([*batch.tolist(), torch.rand(()).item()])
            return state.seen

        return trial.attempt(body)

    wanted = attempt(Trial(), None)
    assert [
        sorted(number for row in wanted[at : at + 5] for number in row[:4]) for at in (0, 5, 10)
    ] == [list(range(20))] * 3
    for stop in (1, 3, 4, 5, 6, 9, 13, 14):
        trial = Trial()
        torch.manual_seed(stop)
        with pytest.raises(trial.Killed):
            attempt(trial, stop)
        torch.manual_seed(stop)
        assert attempt(trial, None) == wanted, stop


def test_handles_of_a_device_are_refused_by_their_path() -> None:
    torch = pytest.importorskip("torch")
    stream = torch.Stream.__new__(torch.Stream, stream_id=0, device_index=0, device_type=1)
    with pytest.raises(InputError, match=r"parts\.streams\[1\] is a Stream of a device"):
        Trial().attempt(lambda track: track(parts={"streams": [0, stream]}))


@pytest.mark.reliability("R9")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_with_a_generator_of_its_own_that_is_tracked_too(workers: int) -> None:
    torch = pytest.importorskip("torch")

    def attempt(trial: Trial, stop: int | None) -> Any:
        def body(track: Any) -> Any:
            order = torch.Generator().manual_seed(3)
            loader = torch.utils.data.DataLoader(
                list(range(20)), batch_size=4, shuffle=True, num_workers=workers, generator=order
            )
            state = track(seen=[], order=order)
            for _ in state.range(3):
                for batch in state.iterate(loader):
                    if len(state.seen) == stop:
                        trial.kill()
                    state.seen.append(batch.tolist())
            return state.seen

        return trial.attempt(body)

    wanted = attempt(Trial(), None)
    for stop in (1, 4, 5, 6, 9, 13):
        trial = Trial()
        with pytest.raises(trial.Killed):
            attempt(trial, stop)
        assert attempt(trial, None) == wanted, stop


@pytest.mark.reliability("R9")
def test_a_schedule_that_steps_between_two_tracked_loops_steps_once_an_epoch() -> None:
    torch = pytest.importorskip("torch")

    def attempt(trial: Trial, stop: int | None) -> Any:
        def body(track: Any) -> Any:
            torch.manual_seed(3)
            model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5))
            optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
            schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
            state = track(model=model, optimizer=optimizer, schedule=schedule, rates=[])
            loader = torch.utils.data.DataLoader(torch.eye(4), batch_size=1, shuffle=True)
            for _ in state.range(3):
                for batch in state.iterate(loader):
                    if len(state.rates) == stop:
                        trial.kill()
                    optimizer.zero_grad()
                    model(batch).square().sum().backward()
                    optimizer.step()
                    state.rates.append(optimizer.param_groups[0]["lr"])
                schedule.step()
            return state.rates, [part.tolist() for part in model.state_dict().values()]

        return trial.attempt(body)

    wanted = attempt(Trial(), None)
    assert wanted[0] == [0.1] * 4 + [0.05] * 4 + [0.025] * 4
    for stop in range(1, 12):
        trial = Trial()
        with pytest.raises(trial.Killed):
            attempt(trial, stop)
        torch.manual_seed(stop)
        assert attempt(trial, None) == wanted, stop


@pytest.mark.parametrize("tracked", [True, False])
def test_a_generator_of_a_loader_that_is_not_tracked_is_told_of(tracked: bool) -> None:
    torch = pytest.importorskip("torch", reason="no PyTorch: `make frameworks` installs it")
    trial = Trial()

    def body(track: Any) -> None:
        order = torch.Generator()
        loader = torch.utils.data.DataLoader(list(range(6)), shuffle=True, generator=order)
        state = track(order=order) if tracked else track(x=0)
        for _ in state.range(2):
            assert sorted(int(item) for item in state.iterate(loader)) == list(range(6))

    trial.attempt(body)
    assert trial.warnings == ([] if tracked else ["generator"])
