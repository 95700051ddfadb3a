"""From the operating system's error numbers to the errors that a handler can act on."""

from __future__ import annotations

import errno
import os

from headway.model.errors import StorageDenied, StorageError, StorageFull, StorageUnavailable

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EFBIG, errno.ENOMEM}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


def storage_error(error: OSError, doing: str, *, place: str = "the home") -> StorageError:
    """The `StorageError` for an `OSError`.

    Args:
        error: what the system said.
        doing: what was tried, to follow "could not": "write runs/x".
        place: what to look at: the home, or a path of the user's.
    """
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _FULL:
        kind: type[StorageError] = StorageFull
        advice = "make room (or raise the limit), then `headway resume`"
    elif error.errno in _DENIED:
        kind, advice = StorageDenied, f"check the owner and the mode of {place}"
    else:
        kind = StorageUnavailable
        advice = f"check the disk that holds {place}, then `headway resume`"
    failure = kind(f"could not {doing}: {reason}. Earlier checkpoints are safe; {advice}.")
    failure.errno = error.errno
    return failure
