"""Programs that are measured, each in a process of its own, with the Python of its own environment.

None of them imports more than it measures: `protocol` is all that they share.
"""
