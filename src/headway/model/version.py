"""The version of headway, which journals carry and `headway --version` prints."""

__version__ = "0.1.0"
