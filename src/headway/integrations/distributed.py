"""`torch.distributed.checkpoint`: `dcp.save(state, storage_writer=Writer())` saves a sharded state as one
checkpoint of headway, and `dcp.load(state, storage_reader=Reader())` loads it, into as many ranks as there
are now.

One process writes into the home: the coordinator (rank 0), which has the checkpoint. The others lend it
the memory that their shards were copied to (`lent`). So a save is one record, made when all ranks gave
their part, and what did not change since the last one is referenced. When loading, the coordinator reads
and lends, and all ranks get the same checkpoint, whatever is damaged.
"""

from __future__ import annotations

import collections
import io
import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, TypeVar

import torch.distributed as dist
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import (
    LoadItemType,
    LoadPlan,
    LoadPlanner,
    SavePlan,
    SavePlanner,
)
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from headway.checkpoint.handle import Checkpoint
from headway.integrations.described import described, metadata_of
from headway.integrations.items import Lent, content_of, lend, name_of, pickled, plain, size_of
from headway.integrations.lent import Lender, borrow
from headway.model.errors import CheckpointError, HeadwayError, InputError
from headway.tracking import checkpoint_of

T = TypeVar("T")

DCP = "_dcp"
"""Where in the saved mapping it says what belongs where; the items stand beside it."""


class Writer(StorageWriter):  # type: ignore[misc]  # PyTorch's types are not read
    """Saves what `dcp.save` and `dcp.async_save` are given; on return, or when the future is done, it is
    durable. One for each rank; it may be used for many saves.

    Args:
        checkpoint: of the coordinator: where; None is that of the attempt that headway runs. Other ranks
            have none.

    Errors reach the caller within a `CheckpointException`, as DCP does it with all of them.
    """

    def __init__(self, checkpoint: Checkpoint | None = None) -> None:
        super().__init__()
        self._checkpoint = checkpoint
        self._coordinates = True
        self._mine: dict[str, Any] = {}  # what the coordinator has itself
        self._lender: Lender | None = None

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """See `StorageWriter`."""
        _refuse_id(checkpoint_id)
        self._mine = {}

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """See `StorageWriter`.

        Raises:
            InputError: every rank was to save for itself.
            HeadwayError: there is nowhere to save.
        """
        if not kwargs.get("use_collectives", True):
            raise InputError(
                "Writer() saves what all ranks have as one checkpoint: leave out use_collectives=False"
            )
        self._coordinates = is_coordinator
        if is_coordinator:
            self._checkpoint = checkpoint_of("Writer()", self._checkpoint)
            self._checkpoint.expect_many()

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """See `StorageWriter`."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """See `StorageWriter`."""
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """See `StorageWriter`. The coordinator keeps its items until `finish`, others lend theirs."""
        items = {item.index: planner.resolve_data(item) for item in plan.items}
        contents = {index: content_of(index, item) for index, item in items.items()}
        if self._coordinates:
            self._mine = {name_of(index): content for index, content in contents.items()}
            loans: list[Lent | None] = [None] * len(contents)
        else:
            loans = self._lent([*contents.values()])
        return _done(
            [
                WriteResult(index, size_of(content), loan)
                for (index, content), loan in zip(contents.items(), loans, strict=True)
            ]
        )

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """See `StorageWriter`: the coordinator saves what all have.

        Raises:
            HeadwayError: a rank's memory cannot be read.
            UntrustedState: something in the state is no data, and others can write to the home.
            InputError, CheckpointFenced, StorageError: as for `Checkpoint.save`.
        """
        checkpoint = self._checkpoint
        assert checkpoint is not None
        state = self._state(itertools.chain(*results))
        if not checkpoint.trusts_pickles:
            for name, content in state.items():
                if isinstance(content, bytes):
                    plain(content, name)
        metadata.storage_data = {
            each.index: name_of(each.index) for each in itertools.chain(*results)
        }
        taken = [DCP] if DCP in state else []
        names = collections.Counter(metadata.storage_data.values())
        taken += [name for name, often in names.items() if often > 1]
        if taken:
            raise InputError(
                f"two items of the state would be called {taken[0]!r}: rename one of them"
            )
        checkpoint.save({**state, DCP: described(metadata)})
        self._mine = {}

    def _state(self, results: Iterable[WriteResult]) -> dict[str, Any]:
        """What all ranks have, by name."""
        borrowed: dict[bytes, list[memoryview]] = {}
        state: dict[str, Any] = {}
        for result in results:
            name = name_of(result.index)
            lent: Lent | None = result.storage_data
            if lent is None:
                state[name] = self._mine[name]
                continue
            if lent.loan.token not in borrowed:
                borrowed[lent.loan.token] = borrow(lent.loan)
            state[name] = lent.content(borrowed[lent.loan.token])
        return state

    def _lent(self, contents: list[Any]) -> list[Lent | None]:
        """A copy of these, for the coordinator."""
        if self._lender is None:
            self._lender = Lender()
        return list(lend(self._lender, contents))

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """See `StorageWriter`."""
        return False

    def __reduce__(self) -> NoReturn:
        raise InputError(
            "Writer() stays in the process that has the checkpoint: leave out "
            "async_checkpointer_type=PROCESS"
        )


class Reader(StorageReader):  # type: ignore[misc]  # PyTorch's types are not read
    """Loads the newest checkpoint that a `Writer` saved, when it is made; `dcp.load` puts it in place. All
    ranks make one at the same time. The state is in memory as long as this object is.

    Args:
        checkpoint: of the coordinator, as for `Writer`.
        process_group, no_dist: as for `dcp.load`, which is to be given the same.

    Attributes:
        found: whether there is a checkpoint; the same on all ranks.

    Raises:
        HeadwayError: there is nowhere to look; or a rank is on another machine.
        UntrustedState: something in it is no data, and others can write to the home.
        CheckpointError, StorageError: as for `Checkpoint.load`; on all ranks.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | None = None,
        *,
        process_group: Any = None,
        no_dist: bool = False,
    ) -> None:
        super().__init__()
        self._metadata: Metadata | None = None
        self._items: Mapping[str, Any] = {}
        if no_dist or not (dist.is_available() and dist.is_initialized()):
            found = _load(checkpoint)
            if found is not None:
                self._metadata, self._items = found
        else:
            self._share(checkpoint, process_group)
        self.found = self._metadata is not None

    def _share(self, checkpoint: Checkpoint | None, group: Any) -> None:
        """The coordinator loads, and lends it to the others; whatever happens, they are told."""
        first = dist.get_rank(group) == 0
        told: list[Any] = [None]
        failure: BaseException | None = None
        lender = Lender() if first else None  # until all have borrowed
        try:
            if lender is not None:
                told = [self._offered(checkpoint, lender)]
        except BaseException as error:  # noqa: BLE001  # it is raised below
            failure = error
            told = [error if isinstance(error, HeadwayError) else HeadwayError(repr(error))]
        source = 0 if group is None else dist.get_global_rank(group, 0)
        dist.broadcast_object_list(told, src=source, group=group)
        offer = told[0]
        if isinstance(offer, BaseException):
            raise failure or offer
        if offer is not None:
            _agree(lambda: None if first else self._take(*offer), group)

    def _offered(
        self, checkpoint: Checkpoint | None, lender: Lender
    ) -> tuple[Metadata, dict[str, Lent]] | None:
        """What the coordinator loads, and where the others find it."""
        found = _load(checkpoint)
        if found is None:
            return None
        self._metadata, self._items = found
        lent = lend(lender, [*self._items.values()])
        return self._metadata, dict(zip(self._items, lent, strict=True))

    def _take(self, metadata: Metadata, lent: dict[str, Lent]) -> None:
        """Borrow what the coordinator has."""
        borrowed: list[memoryview] = []
        for each in lent.values():
            borrowed = borrowed or borrow(each.loan)
        self._items = {name: each.content(borrowed) for name, each in lent.items()}
        self._metadata = metadata

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """See `StorageReader`."""
        _refuse_id(checkpoint_id)

    def read_metadata(self) -> Metadata:
        """See `StorageReader`.

        Raises:
            CheckpointError: there is no checkpoint.
        """
        if self._metadata is None:
            raise CheckpointError(
                "there is no checkpoint yet: load only when there is one, `if reader.found:`"
            )
        return self._metadata

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool) -> None:
        """See `StorageReader`."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """See `StorageReader`."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """See `StorageReader`."""
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """See `StorageReader`."""
        names = self.read_metadata().storage_data
        for item in plan.items:
            content = self._items[names[item.storage_index]]
            if item.type == LoadItemType.BYTE_IO:
                planner.load_bytes(item, io.BytesIO(content))
                continue
            box = zip(item.storage_offsets, item.lengths, strict=True)
            piece = content[tuple(slice(start, start + length) for start, length in box)]
            target = planner.resolve_tensor(item).detach()
            if target.size() != piece.size():
                raise CheckpointError(
                    f"{item.storage_index.fqn}: the planner asks for {tuple(piece.size())} of it, to be "
                    f"put into {tuple(target.size())}"
                )
            target.copy_(piece)
            planner.commit_tensor(item, target)
        return _done(None)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """See `StorageReader`."""
        return False


def _load(checkpoint: Checkpoint | None) -> tuple[Metadata, dict[str, Any]] | None:
    """The newest checkpoint; None when there is none."""
    place = checkpoint_of("Reader()", checkpoint)
    state = place.load()
    if state is None:
        return None
    if not isinstance(state, dict) or DCP not in state:
        raise CheckpointError(
            "the newest checkpoint was not saved by dcp.save(…, storage_writer=Writer()). Use load(), "
            "read() or restore() for what was saved without it, or start over with a new `headway run`."
        )
    metadata = metadata_of(state.pop(DCP), state)
    if not place.trusts_pickles:
        for name, content in state.items():
            if isinstance(content, bytes):
                state[name] = pickled(plain(content, name))
    return metadata, state


def _agree(call: Callable[[], None], group: Any) -> None:
    """Call on all ranks; raise on all what one raises."""
    failure: BaseException | None = None
    try:
        call()
    except Exception as error:  # noqa: BLE001  # it is raised when the others know
        failure = error
    told: list[Any] = [None] * dist.get_world_size(group)
    text = None if failure is None else f"rank {dist.get_rank(group)}: {failure}"
    dist.all_gather_object(told, text, group=group)
    if failure is not None:
        raise failure
    failed = [text for text in told if text is not None]
    if failed:
        raise HeadwayError(f"another rank cannot load the checkpoint: {failed[0]}")


def _refuse_id(checkpoint_id: str | os.PathLike[str] | None) -> None:
    if checkpoint_id is not None:
        raise InputError(
            f"checkpoint_id={os.fspath(checkpoint_id)!r} says nothing here: a save makes the next "
            "checkpoint, and the newest is loaded. Leave it out; open_checkpoint(url) chooses where."
        )


def _done(value: T) -> Future[T]:
    future: Future[T] = Future()
    future.set_result(value)
    return future
