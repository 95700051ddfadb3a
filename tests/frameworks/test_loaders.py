"""PyTorch's loaders under `track`: after a restart in the midst of an epoch the batches are those that an
undisturbed run has, with the random numbers that the loader's processes draw."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.counting import count
from tests.frameworks.killing import Killed, Trial

torch = pytest.importorskip("torch", reason="no PyTorch: `make frameworks` installs it")

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.reliability("R9"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),  # of loaders with workers
    pytest.mark.filterwarnings("ignore:.*set_vital:UserWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]
ITEMS, BATCH, EPOCHS = 22, 3, 2
BATCHES = -(-ITEMS // BATCH)

Make = Callable[..., Any]
Body = Callable[[Callable[..., Any]], Any]


class Augmented(torch.utils.data.Dataset):  # type: ignore[misc, name-defined]
    """Items with noise from each random generator of the process that reads them."""

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, index: int) -> Any:
        return [index, torch.rand(()).item(), random.random(), np.random.random()]


class Sometimes(Augmented):
    """Items that have noise only late in the order."""

    def __getitem__(self, index: int) -> Any:
        return [index, torch.rand(()).item() if index > ITEMS // 2 else 0.0]


class AtOnce(Augmented):
    """A batch is asked for at once, and there is none without items."""

    def __getitems__(self, indices: list[int]) -> Any:
        return [self[index] for index in indices] if indices else 1 / 0


def plain(dataset: Any = None, **options: Any) -> Any:
    return torch.utils.data.DataLoader(
        dataset or Augmented(), batch_size=BATCH, shuffle=True, **options
    )


def stateful(dataset: Any = None, **options: Any) -> Any:
    loaders = pytest.importorskip(
        "torchdata.stateful_dataloader", reason="no torchdata: `make frameworks` installs it"
    )
    return loaders.StatefulDataLoader(
        dataset or Augmented(), batch_size=BATCH, shuffle=True, **options
    )


def as_lists(rows: list[Any]) -> list[Any]:
    return rows


def seeded(worker: int) -> None:
    random.seed(100 + worker)


def flat(trial: Trial, stop: int | None, make: Make) -> Body:
    """A loop over epochs and batches."""

    def body(track: Callable[..., Any]) -> Any:
        _seed(3)
        loader = make()
        own = {} if loader.sampler.generator is None else {"order": loader.sampler.generator}
        state = track(seen=[], **own)
        for _ in state.range(EPOCHS):
            for batch in state.iterate(loader):
                if len(state.seen) == stop:
                    trial.kill()
                state.seen.append([_plain(batch), torch.rand(()).item()])
        return state.seen

    return body


def nested(trial: Trial, stop: int | None, make: Make) -> Body:
    """The same with a loop in each batch."""

    def body(track: Callable[..., Any]) -> Any:
        _seed(3)
        loader = make()
        own = {} if loader.sampler.generator is None else {"order": loader.sampler.generator}
        state = track(seen=[], **own)
        for _ in state.range(EPOCHS):
            for batch in state.iterate(loader):
                for part in state.range(3):
                    if len(state.seen) == stop:
                        trial.kill()
                    state.seen.append([part, _plain(batch), torch.rand(()).item()])
        return state.seen

    return body


def _plain(batch: Any) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch.tolist()
    return [_plain(each) for each in batch] if isinstance(batch, list) else batch


def check(loop: Callable[..., Body], make: Make, stops: list[int]) -> None:
    """Killed once, or twice, it sees what an undisturbed loop sees."""
    wanted = Trial().attempt(loop(Trial(), None, make))
    kills = 0
    for stop in stops:
        trial = Trial()
        for at in dict.fromkeys([stop, min(stop + 2, len(wanted) - 1)]):
            _seed(at)
            with pytest.raises(Killed):
                trial.attempt(loop(trial, at, make))
            kills += 1
        _seed(stop + 100)
        assert trial.attempt(loop(trial, None, make)) == wanted, stop
    count("R9", "interrupted attempts of frameworks", kills)


def _seed(seed: int) -> None:
    """Of all generators of this process."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


@pytest.mark.parametrize("make", [plain, stateful])
def test_random_numbers_of_the_processes(make: Make) -> None:
    stops = [1, 2, 3, 4, BATCHES - 1, BATCHES, BATCHES + 1, 2 * BATCHES - 2]
    check(flat, lambda: make(num_workers=3, collate_fn=as_lists), stops)


@pytest.mark.parametrize("make", [plain, stateful])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_loop_within_a_batch_has_that_batch_again(make: Make, workers: int) -> None:
    stops = [1, 2, 4, 7, 3 * BATCHES - 1, 3 * BATCHES, 3 * BATCHES + 2]
    check(nested, lambda: make(num_workers=workers), stops)


def test_random_numbers_that_only_late_items_draw() -> None:
    check(flat, lambda: plain(Sometimes(), num_workers=2), [1, 2, 3, 5, BATCHES + 1])


def test_processes_with_a_beginning_of_the_users_own() -> None:
    check(
        flat,
        lambda: plain(num_workers=2, worker_init_fn=seeded, prefetch_factor=4),
        [1, 3, BATCHES + 2],
    )


def test_a_generator_of_the_loaders_own() -> None:
    check(
        flat,
        lambda: plain(num_workers=2, generator=torch.Generator().manual_seed(9)),
        [1, 3, BATCHES, BATCHES + 2],
    )


def test_processes_that_are_started_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "EPOCHS", 1)
    check(flat, lambda: plain(num_workers=2, multiprocessing_context="spawn"), [BATCHES - 1])


def test_a_dataset_that_has_no_empty_batches_goes_on() -> None:
    def seen(stop: int | None, trial: Trial) -> list[Any]:
        found = trial.attempt(flat(trial, stop, lambda: plain(AtOnce(), num_workers=2)))
        return [[int(index) for index in batch[0]] for batch, _ in found]

    wanted = seen(None, Trial())
    trial = Trial()
    with pytest.raises(Killed):
        seen(3, trial)
    assert seen(None, trial) == wanted, "the same items; the noise may differ"


@pytest.mark.parametrize(
    "options",
    [{"num_workers": 0}, {"num_workers": 2, "persistent_workers": True}, {"num_workers": 2}],
    ids=["none", "persistent", "new"],
)
def test_a_loader_is_the_users_again(options: dict[str, Any]) -> None:
    trial = Trial()

    def body(track: Callable[..., Any]) -> None:
        loader = plain(collate_fn=as_lists, worker_init_fn=seeded, **options)
        state = track(total=0)
        for _ in state.iterate(loader):
            state.total += 1
        assert loader.collate_fn is as_lists
        assert loader.worker_init_fn is seeded
        rows = [row for batch in loader for row in batch]
        assert sorted(row[0] for row in rows) == list(range(ITEMS))

    trial.attempt(body)
