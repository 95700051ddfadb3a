"""A checkpoint outside of any run: for Airflow, Kubernetes, Slurm, Ray Train or a plain cron job."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

from headway import compose
from headway.checkpoint.handle import Checkpoint
from headway.checkpoint.retain import rule_of
from headway.engine.keys import lineage_prefix
from headway.model.errors import InputError
from headway.model.ids import node_key
from headway.model.program import Warned
from headway.model.settings import Best, Keep


@contextlib.contextmanager
def open_checkpoint(
    url: str, *, keep: Keep = None, keep_best: Best | None = None
) -> Iterator[Checkpoint]:
    """Open the state of a lineage by name, or begin one. Use it in a `with` statement.

    It is the same object as `current_context().checkpoint`. Opening takes the lineage over: whoever
    opened it before, and may still run somewhere, gets `CheckpointFenced` at its next save.

    Args:
        url: a home, `/`, and the lineage's name: `/mnt/disk/headway/nightly-crawl`, or
            `s3://bucket/headway/nightly-crawl`. The home is made when it is not there. Names have
            letters, digits and `_ . - [ ]`.
        keep: how many of the newest checkpoints stay, or "all". By default the newest 3 of those that
            are too large (32 KiB) for the record itself, and every small one.
        keep_best: name of a number at the top of the saved mapping, and "min" or "max": the checkpoint
            where it is best stays too.

    Raises:
        InputError: `url` has no name in it, or one that cannot be a file's; or `keep` or `keep_best` is
            none of what is said above.
        CheckpointCorrupt: there were checkpoints, and none of them can be read.
        StorageError: the home could not be made, read or written.

    A checkpoint that fails its checks is skipped for an older one, with a `RuntimeWarning`.
    """
    home, _, name = url.rstrip("/").rpartition("/")
    if not home or home.endswith(":/") or not name or node_key(name) != name:
        raise InputError(
            f"{url!r} is not the place of a checkpoint. Give a home and a name of letters, digits, "
            "`_`, `.` and `-`: open_checkpoint('/mnt/disk/headway/nightly-crawl'), or "
            "open_checkpoint('s3://bucket/nightly-crawl')."
        )
    rule_of(keep, keep_best)  # before a home is made
    storage = compose.open_storage(home, create=True)
    checkpoint = Checkpoint(
        storage, lineage_prefix(name), on_warning=_warn, keep=keep, keep_best=keep_best
    )
    with contextlib.closing(checkpoint):
        checkpoint.history()  # claims a term
        yield checkpoint


def _warn(warned: Warned) -> None:
    warnings.warn(warned.message, RuntimeWarning, stacklevel=2)
