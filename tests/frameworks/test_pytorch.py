"""PyTorch under `track`: whatever instant a training ends at, it ends with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.frameworks.killing import Example, Trial, added_lines

from headway.model.errors import InputError
from headway.testing.memory import MemoryStorage

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),  # of loaders with workers
]
EXAMPLE = "torch_digits"


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


class Factor:
    """A function that has attributes, which PyTorch saves with the schedule."""

    def __init__(self) -> None:
        self.base = 0.9

    def __call__(self, epoch: int) -> float:
        return self.base**epoch


def schedules(torch: Any) -> dict[str, Any]:
    """Makes a schedule of an optimizer."""
    rate = torch.optim.lr_scheduler

    class Own(rate.LRScheduler):  # type: ignore[misc,name-defined]
        def __init__(self, optimizer: Any, function: Any) -> None:
            self.function = function
            super().__init__(optimizer)

        def get_lr(self) -> list[float]:
            return [self.function(base, self.last_epoch) for base in self.base_lrs]

    return {
        "lambda": lambda o: rate.LambdaLR(o, lambda epoch: 0.9**epoch),
        "lambda with attributes": lambda o: rate.LambdaLR(o, [Factor()]),
        "product of lambdas": lambda o: rate.MultiplicativeLR(o, lambda epoch: 0.9),
        "one cycle": lambda o: rate.OneCycleLR(o, 0.1, total_steps=20),
        "warm restarts": lambda o: rate.CosineAnnealingWarmRestarts(o, 3, 2),
        "plateau": lambda o: rate.ReduceLROnPlateau(o, patience=1, factor=0.5),
        "milestones": lambda o: rate.MultiStepLR(o, [2, 5, 5, 9]),
        "cyclic": lambda o: rate.CyclicLR(
            o, 0.01, 0.1, step_size_up=3, scale_fn=lambda x: 0.9**x
        ),
        "one after the other": lambda o: rate.SequentialLR(
            o, [rate.LambdaLR(o, lambda epoch: (epoch + 1) / 4), rate.MultiStepLR(o, [2])], [4]
        ),
        "all at once": lambda o: rate.ChainedScheduler(
            [rate.ConstantLR(o, 0.1, 3), rate.ExponentialLR(o, 0.9)]
        ),
        "own": lambda o: Own(o, lambda base, epoch: base / (1 + epoch)),
        "averaging": lambda o: torch.optim.swa_utils.SWALR(o, 0.01, anneal_epochs=4),
    }  # fmt: skip


@pytest.mark.reliability("R9")
@pytest.mark.parametrize(
    "name",
    ["lambda", "lambda with attributes", "product of lambdas", "one cycle", "warm restarts", "plateau",
     "milestones", "cyclic", "one after the other", "all at once", "own", "averaging"],
)  # fmt: skip
def test_a_schedule_goes_on_where_it_was(name: str) -> None:
    torch = pytest.importorskip("torch", reason="no PyTorch: `make frameworks` installs it")
    make = schedules(torch)
    assert name in make

    def attempt(trial: Trial, stop: int | None) -> Any:
        def body(track: Any) -> Any:
            torch.manual_seed(3)
            model = torch.nn.Linear(3, 1)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            schedule = make[name](optimizer)
            state = track(model=model, optimizer=optimizer, schedule=schedule, rates=[])
            for turn in state.range(12):
                if turn == stop:
                    trial.kill()
                optimizer.zero_grad()
                model(torch.randn(4, 3)).square().sum().backward()
                optimizer.step()
                schedule.step(*[float(turn % 3)] * (name == "plateau"))
                state.rates.append(optimizer.param_groups[0]["lr"])
            held = {
                key: value for key, value in schedule.state_dict().items() if not callable(value)
            }
            return state.rates, [part.tolist() for part in model.parameters()], repr(held)

        return trial.attempt(body)

    wanted = attempt(Trial(), None)
    assert len(set(wanted[0])) > 2
    for stop in (1, 4, 7, 11):
        trial = Trial(MemoryStorage(trusted=False))
        with pytest.raises(trial.Killed):
            attempt(trial, stop)
        assert attempt(trial, None) == wanted, stop


def test_what_a_schedule_has_that_is_not_data_is_refused_by_its_path() -> None:
    torch = pytest.importorskip("torch", reason="no PyTorch: `make frameworks` installs it")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    schedule.table = [1, {"file": open(__file__)}]  # noqa: SIM115
    with (
        schedule.table[1]["file"],
        pytest.raises(InputError, match=r"parts\[0\]\.table\[1\]\.file is an open file"),
    ):
        Trial().attempt(lambda track: track(parts=[schedule]))


@pytest.mark.reliability("R9")
def test_a_scaler_of_gradients_goes_on_where_it_was() -> None:
    """One that has scaled nothing yet has its numbers on no device."""
    torch = pytest.importorskip("torch", reason="no PyTorch: `make frameworks` installs it")
    finite = [True, True, False, True, True, True, False, True, True, True, True]

    def attempt(trial: Trial, stop: int | None) -> Any:
        def body(track: Any) -> Any:
            torch.manual_seed(3)
            model = torch.nn.Linear(3, 1)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
            scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
            state = track(model=model, optimizer=optimizer, scaler=scaler, scales=[])
            for turn in state.range(len(finite)):
                if turn == stop:
                    trial.kill()
                if turn == 0:
                    continue  # nothing is scaled in the first turn
                optimizer.zero_grad()
                loss = model(torch.randn(4, 3)).square().sum()
                scaler.scale(loss if finite[turn] else loss * torch.inf).backward()
                scaler.step(optimizer)
                scaler.update()
                state.scales.append([scaler.get_scale(), scaler._get_growth_tracker()])
            return state.scales, [part.tolist() for part in model.parameters()]

        return trial.attempt(body)

    wanted = attempt(Trial(), None)
    assert [8.0, 1] in wanted[0]
    assert {scale for scale, _ in wanted[0]} >= {4.0, 8.0}
    for stop in range(1, len(finite)):
        trial = Trial(MemoryStorage(trusted=False))
        with pytest.raises(trial.Killed):
            attempt(trial, stop)
        assert attempt(trial, None) == wanted, stop


def test_a_scaler_that_is_off_is_tracked_too() -> None:
    torch = pytest.importorskip("torch", reason="no PyTorch: `make frameworks` installs it")
    trial = Trial(MemoryStorage(trusted=False))

    def body(track: Any) -> Any:
        state = track(scaler=torch.amp.GradScaler("cpu", enabled=False), done=0)
        for _ in state.range(3):
            state.done += 1
        return state.done, state.scaler.get_scale()

    assert [trial.attempt(body) for _ in range(2)] == [(3, 1.0)] * 2
