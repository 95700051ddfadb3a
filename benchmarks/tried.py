"""What was tried for targets that are missed: shown below a row, as long as it misses one."""

TRIED = {
    "S1": (
        "PyTorch's row waits for `track`: copying beside the next forward and backward pass needs a"
        " hook in the step. For NumPy: copies of 512 KiB a call (up to a tenth faster than 8 MiB), "
        "a reused copy in huge pages."
    ),
    "S3": (
        "each thread copies (5 % of the time), hashes (3 %) and writes in turn. Eight threads of 4 "
        "MiB instead of four of 8: 1.46 to 1.19 ×. Without the copy into an aligned buffer it would"
        " be 1.03 ×, and a save of live memory would not be of one instant. Huge pages for the "
        "buffers: they have them. Left: writing from memory that is aligned anyway."
    ),
    "S4": (
        "as S3; the pack is recycled, so the disk itself takes half the time, and copy and hash "
        "weigh twice as much."
    ),
    "S5": (
        "4 KiB pages in the reading buffer held the disk at 1.2 GB/s (254 segments a request): with"
        " huge pages 3.6 to 1.3 ×, with eight readers and `cachestat` instead of `mincore` 1.17 ×. "
        "What is left is the copy out of the buffer, for destinations that are not aligned, and the"
        " hash (1.05 × without both)."
    ),
    "S6": (
        "reading the page cache costs a copy, and hashing about as much again on two cores: 2.9 to "
        "1.6 × with `cachestat`. Left: hashing while the bytes are still in the processor's cache, "
        "in steps of 256 KiB."
    ),
    "S8": (
        "the writers share two cores and one journal of the filesystem; a group commit over "
        "processes was not tried."
    ),
    "S9": (
        "pages are found word by word with NumPy, 2 MiB at a time (8.6 to about 1.4–2.5 ×). "
        "Stretches of 1 MiB are slower. What is left is one pass over both copies that memory is "
        "fast enough for only when nothing else runs."
    ),
    "S12": ("the save's copy takes the cores that train; nothing else was tried."),
    "S13": (
        "large files are read, hashed and written on four threads of 8 MiB; small ones with half "
        "the system calls."
    ),
    "S14": (
        "parts of 8 MiB from several threads; the server, on the same two cores, is what takes the "
        "time."
    ),
}
"""Row -> what was tried, for a person."""
