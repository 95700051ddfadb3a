"""Which attempt a process runs."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from headway.checkpoint.handle import Checkpoint
from headway.engine.context import Context, current_context, entered, in_body
from headway.model.errors import HeadwayError
from headway.storage.local import LocalStorage


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context("1tq4zk-8f3d", "train", 2, 1, Checkpoint(LocalStorage(tmp_path), "n"))


def test_outside_a_body_the_error_says_where_to_call_it() -> None:
    with pytest.raises(HeadwayError, match=r"@task.*headway run FILE TASK"):
        current_context()
    assert not in_body()


def test_inside_a_body_there_is_one(context: Context) -> None:
    with entered(context):
        assert current_context() is context
        assert in_body()
    assert not in_body()


def test_threads_of_a_body_see_it_too(context: Context) -> None:
    seen: list[Context] = []
    with entered(context):
        thread = threading.Thread(target=lambda: seen.append(current_context()))
        thread.start()
        thread.join()
    assert seen == [context]


def test_a_body_that_raises_leaves_none_behind(context: Context) -> None:
    with pytest.raises(ValueError, match="no"), entered(context):
        raise ValueError("no")
    assert not in_body()


def test_the_context_before_comes_back(context: Context) -> None:
    inner = Context("1tq4zk-8f3d", "score", 0, 0, context.checkpoint)
    with entered(context):
        with entered(inner):
            assert current_context() is inner
        assert current_context() is context


def test_it_cannot_be_changed(context: Context) -> None:
    with pytest.raises(AttributeError):
        context.attempt = 3  # type: ignore[misc]
