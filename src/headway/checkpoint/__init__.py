"""Checkpoints of one node: saving, finding the newest good one, restoring."""
