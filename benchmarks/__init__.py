"""headway's figures, beside those of other tools on the same machine: `python -m benchmarks --help`.

Nothing here is imported by headway or by its tests' assertions: times are read by people.
"""
