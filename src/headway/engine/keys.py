"""Where the things of a run are in its home: the one place that spells their keys.

runs/<run>/ledger/…                 its journal
runs/<run>/nodes/<node>/…           a node's checkpoints
runs/<run>/nodes/<node>.kept/…      those of the directories that `headway exec` keeps for it
runs/<run>/values/…                 large values
runs/<run>/logs/<node>/<n>.log      output of attempt n
runs/<run>/logs/<node>/<n>.log.<m>  the same from byte m on, of a long one in a store
runs/<run>/cancel                   there when the user asked to cancel
runs/<run>/driver/…                 the driver's sign of life, in a store
lineages/<name>/…                   a checkpoint outside of any run, laid out as a node
"""

from __future__ import annotations

from headway.model.ids import node_key

KEPT = "kept"
"""What stands behind a node's name, and a dot, where the directories of a command are kept."""
RUNS = "runs"
LINEAGES = "lineages"


def run_prefix(run: str) -> str:
    """All of a run."""
    return f"{RUNS}/{run}"


def ledger_prefix(run: str) -> str:
    """A run's journal."""
    return f"{RUNS}/{run}/ledger"


def nodes_prefix(run: str) -> str:
    """All nodes that keep something."""
    return f"{RUNS}/{run}/nodes"


def node_prefix(run: str, node: str) -> str:
    """What a node keeps: its ledger and its packs."""
    return f"{nodes_prefix(run)}/{node_key(node)}"


def beside(node: str, name: str) -> str:
    """What a node keeps in a ledger of its own under a name is laid out as a node called so."""
    return f"{node}.{name}"


def lineage_prefix(name: str) -> str:
    """What `open_checkpoint` keeps under a name, laid out as a node."""
    return f"{LINEAGES}/{name}"


def values_prefix(run: str) -> str:
    """The large parts of a run's values."""
    return f"{RUNS}/{run}/values"


def logs_prefix(run: str) -> str:
    """The output of all attempts, by node."""
    return f"{RUNS}/{run}/logs"


def log_key(run: str, node: str, attempt: int) -> str:
    """The output of an attempt; also its path below a home that is a directory."""
    return f"{logs_prefix(run)}/{node_key(node)}/{attempt}.log"


def cancel_key(run: str) -> str:
    """The user's wish to cancel."""
    return f"{RUNS}/{run}/cancel"


def driver_prefix(run: str) -> str:
    """The driver's sign of life."""
    return f"{RUNS}/{run}/driver"
