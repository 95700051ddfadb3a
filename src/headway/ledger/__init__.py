"""A fenced, append-only, checksummed log of records: journals and checkpoints are both one."""
