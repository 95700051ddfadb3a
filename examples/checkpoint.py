"""The example of Flyte's documentation, on headway's names.

The task fails on purpose every `n_iterations // RETRIES` iterations. Each attempt reads how far the
one before it came, and goes on from there:

    headway run examples/checkpoint.py checkpointing_example --n_iterations 10

runs four attempts, which start at 0, 3, 6 and 9, and prints 9.
"""

from headway import NonRecoverableError, RecoverableError, current_context, task, workflow

RETRIES = 3


@task(retries=RETRIES)
def use_checkpoint(n_iterations: int) -> int:
    """Count to the last iteration, failing RETRIES times on the way.

    Args:
        n_iterations: how many iterations there are, at least RETRIES.

    Returns:
        The index of the last iteration.

    Raises:
        NonRecoverableError: `n_iterations` is too small to fail RETRIES times in it.
    """
    if n_iterations < RETRIES:
        # Flyte's original divides by zero below. No retry can help, so none is spent.
        raise NonRecoverableError(
            f"n_iterations is {n_iterations}, and must be at least {RETRIES}: "
            "the example fails once in each of that many parts"
        )
    cp = current_context().checkpoint
    prev = cp.read()
    start = int(prev.decode()) if prev else 0
    print(f"starting at {start}")

    failure_interval = n_iterations // RETRIES
    last_failure = failure_interval * RETRIES
    # An attempt that was killed after the last write finds nothing left to do, and still knows
    # the answer (Flyte's original returns 0 then).
    index = start - 1
    for index in range(start, n_iterations):
        if index > start and index % failure_interval == 0 and index <= last_failure:
            raise RecoverableError(f"failed at iteration {index}, as planned")
        cp.write(f"{index + 1}".encode())
    return index


@workflow
def checkpointing_example(n_iterations: int) -> int:
    """One task, so that there is something to watch."""
    return use_checkpoint(n_iterations=n_iterations)


if __name__ == "__main__":
    print(checkpointing_example(n_iterations=10))
