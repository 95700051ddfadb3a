"""What was tried for targets that are missed: shown below a row, as long as it misses one."""

TRIED = {
    "S1": (
        "copies of 512 KiB a call (up to a tenth faster than 8 MiB), a reused copy in huge pages."
    ),
    "S3": (
        "each thread copies (5 % of the time), hashes (3 %) and writes in turn. Eight threads of 4 "
        "MiB instead of four of 8: 1.46 to 1.19 ×; of 2 MiB, so that all buffers stay in the "
        "processor's cache, and each stretch hashed right after its copy: 1.06 to 1.15 × (4 to 16 "
        "threads alike). Without the copy into an aligned buffer it would be 1.03 ×, and a save of "
        "live memory would not be of one instant."
    ),
    "S4": (
        "as S3; the pack is recycled, so the disk itself takes half the time, and copy and hash "
        "weigh twice as much: 0.87 to about 0.75 × by what is said there."
    ),
    "S5": (
        "4 KiB pages in the reading buffer held the disk at 1.2 GB/s (254 segments a request): with"
        " huge pages 3.6 to 1.3 ×, with eight readers and `cachestat` instead of `mincore` 1.17 ×, "
        "with each stretch hashed as it arrives 1.06 to 1.2 ×, as the disk is that day (4 to 16 "
        "readers, buffers of 1 to 4 MiB: no better). What is left is the copy out of the buffer, for "
        "destinations that are not aligned."
    ),
    "S6": (
        "reading the page cache costs a copy, and hashing half as much again on two cores: 2.9 to 1.6"
        " × with `cachestat`, to 1.4 × with each MiB hashed while it is in the processor's cache, "
        "and as many threads as processors (eight: 1.63). A bare loop that reads and hashes takes "
        "1.10 to 1.15 ×. What is left is opening the lineage anew, which claims it (3 ms), and 168 "
        "arrays that are matched and read one by one (4 ms)."
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
        "parts of 8 MiB from several threads; loads of 2 or 4 MiB make no difference (1.30 and 1.25 ×);"
        " the server, on the same two cores, is what takes the time, and a round's restore takes 0.5 "
        "to 2 times what the one before took, for the bare client as well."
    ),
}
"""Row -> what was tried, for a person."""
