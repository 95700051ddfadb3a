"""What a checkpoint's record says. Field names are part of the format: `docs/design/format.md`."""

from __future__ import annotations

import msgspec


class Chunk(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A piece of content: `length` bytes at `offset` of pack number `pack` of the manifest, whose
    xxh3-128 is `hash`; of a home with a key, whose BLAKE3 it is (`checkpoint.identity`). With a `codec`
    (`checkpoint.codec`) the pack has `stored` bytes, of which the `length` bytes are made."""

    hash: bytes
    pack: int
    offset: int
    length: int
    stored: int = 0
    codec: int = 0

    @property
    def held(self) -> int:
        """Bytes that it takes in its pack."""
        return self.stored if self.codec else self.length


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A file, a directory or a part of a typed state inside a checkpoint.

    Attributes:
        name: relative path with `/` between its parts; valid UTF-8, no `.` or `..` parts. Of a
            part: where it is in the state, for people.
        kind: "file", "directory" or "part".
        mode: permission bits.
        size: bytes of a file.
        data: the content itself when the checkpoint is small, else None.
        chunks: the content in order when `data` is None.
    """

    name: str
    kind: str
    mode: int
    size: int = 0
    data: bytes | None = None
    chunks: tuple[Chunk, ...] = ()


class Manifest(msgspec.Struct, frozen=True, gc=False, tag_field="record", tag="checkpoint"):
    """One whole checkpoint.

    Attributes:
        number: from 1 within the node.
        attempt: the attempt that saved it.
        inputs: digest of the inputs that it belongs to.
        time: Unix seconds when it was saved, for people.
        cost: seconds that saving took, up to this record.
        kind: "bytes", "file", "directory" or "state": what `save` was given.
        size: bytes of content in all.
        entries: what was saved, parents before children.
        packs: names of the packs that the chunks are in.
        stored: bytes written to each of `packs`, for those that are known.
        skeleton: of a typed state, its tree (`checkpoint.state`); its parts are the entries.
        dropped: numbers of older checkpoints that are given up with this one: from here on nobody
            goes on from them, and their packs may go.
        metric: name and value of the number that `keep_best` compared.
    """

    number: int
    attempt: int
    inputs: str
    time: float
    cost: float
    kind: str
    size: int
    entries: tuple[Entry, ...]
    packs: tuple[str, ...] = ()
    skeleton: bytes | None = None
    dropped: tuple[int, ...] = ()
    stored: tuple[int, ...] = ()
    metric: tuple[str, float] | None = None

    @property
    def given(self) -> tuple[Entry, ...]:
        """The entries that are what `save` was given."""
        return self.entries

    @property
    def beside(self) -> tuple[Entry, ...]:
        """The entries of working directories: each directory at its top, under its name."""
        return ()

    @property
    def directories(self) -> list[str]:
        """Names of the working directories in it."""
        return [entry.name for entry in self.beside if "/" not in entry.name]

    def only(self, entries: tuple[Entry, ...]) -> Manifest:
        """This checkpoint as if it held nothing but these of its entries."""
        if entries is self.entries:
            return self
        held = {name: getattr(self, name) for name in Manifest.__struct_fields__}
        return Manifest(**{**held, "entries": entries})


class Accompanied(
    Manifest, frozen=True, gc=False, tag_field="record", tag="checkpoint-with-directories"
):
    """A checkpoint that has working directories (`Checkpoint.directory`) beside what was saved. It has a
    tag of its own, so that a headway that knows nothing of them refuses it: going on from the state alone
    would lose them.

    Attributes:
        own: how many of the entries, the first ones, are what `save` was given.
    """

    own: int = 0

    @property
    def given(self) -> tuple[Entry, ...]:
        """See `Manifest.given`."""
        return self.entries[: self.own]

    @property
    def beside(self) -> tuple[Entry, ...]:
        """See `Manifest.beside`."""
        return self.entries[self.own :]


class Dropped(msgspec.Struct, frozen=True, gc=False, tag_field="record", tag="dropped"):
    """Checkpoints that are given up, without a new one."""

    numbers: tuple[int, ...]
