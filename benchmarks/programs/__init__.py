"""Programs that headway runs while it is measured."""
