"""JAX under `track`: arrays come back bit for bit, and a killed training ends with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tests.frameworks.killing import Example, Trial, added_lines, saved_and_restored

from headway.checkpoint.handle import Checkpoint
from headway.model.errors import InputError
from headway.testing.memory import MemoryStorage

pytestmark = pytest.mark.frameworks
EXAMPLE = "with_jax"


@pytest.fixture
def jax() -> Any:
    return pytest.importorskip("jax", reason="no JAX: `make frameworks` installs it")


def example(steps: int) -> Example:
    pytest.importorskip("optax", reason="no Optax: `make frameworks` installs it")
    return Example(EXAMPLE, np.random.seed, steps=steps)


def test_three_lines_are_added() -> None:
    assert len(added_lines(EXAMPLE)) == 3


@pytest.mark.reliability("R9")
def test_a_killed_training_ends_with_the_same_weights() -> None:
    example(60).check()


@pytest.mark.reliability("R9")
def test_a_training_whose_worker_gets_sigkill_ends_with_the_same_weights(tmp_path: Path) -> None:
    example(30).check_signal(tmp_path)


class Pair(NamedTuple):
    """As the states of optimizers are."""

    one: Any
    two: Any


DTYPES = [
    "bool", "int4", "int8", "uint16", "int32", "float16", "bfloat16", "float32", "complex64",
    "float8_e4m3fn", "float8_e5m2",
]  # fmt: skip


@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (4, 5)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_array_comes_back(jax: Any, dtype: str, shape: tuple[int, ...]) -> None:
    jnp = jax.numpy
    array = jax.random.randint(jax.random.key(1), shape, 0, 7).astype(dtype)
    back = saved_and_restored(array, jnp.zeros(()))
    assert isinstance(back, jax.Array)
    assert (back.dtype, back.shape, back.weak_type) == (array.dtype, shape, False)
    assert np.asarray(back).tobytes() == np.asarray(array).tobytes()


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_a_key_draws_the_same_numbers(jax: Any, impl: str) -> None:
    keys = jax.random.split(jax.random.key(5, impl=impl), 3)
    back = saved_and_restored(keys, jax.random.key(1))
    assert back.dtype == keys.dtype
    draw = jax.vmap(lambda key: jax.random.normal(key, (4,)))
    assert draw(back).tobytes() == draw(keys).tobytes()
    old = jax.random.PRNGKey(7)
    assert saved_and_restored(old, jax.random.PRNGKey(0)).tolist() == old.tolist()


def test_weak_types_stay_weak(jax: Any) -> None:
    for array in (jax.numpy.asarray(2.0), jax.numpy.full((3,), 2.5), jax.numpy.asarray(7)):
        assert array.weak_type
        back = saved_and_restored(array, jax.numpy.zeros(()))
        assert back.weak_type
        assert back.dtype == array.dtype
        assert back.tolist() == array.tolist()


def test_a_committed_array_stays_on_its_device(jax: Any) -> None:
    device = jax.devices()[0]
    live = jax.device_put(jax.numpy.ones(3), device)
    back = saved_and_restored(live * 2, live)
    assert back.committed
    assert back.sharding == live.sharding
    assert not saved_and_restored(jax.numpy.ones(2), jax.numpy.ones(2)).committed


def test_trees_of_arrays_come_back_in_their_own_types(jax: Any) -> None:
    ones = jax.numpy.ones
    before = {"a": [ones(2), Pair(ones(3) * 4, (ones(1), None))], "b": {"new": ones(2) * 3}}
    after = {"a": [ones(2), Pair(ones(3), (ones(1), None))]}
    back = saved_and_restored(before, after)
    assert jax.tree.structure(back) == jax.tree.structure(before)
    for one, other in zip(jax.tree.leaves(back), jax.tree.leaves(before), strict=True):
        assert isinstance(one, jax.Array)
        assert one.tolist() == other.tolist()


@pytest.mark.parametrize("after", [None, [], 0.0, {}], ids=repr)
def test_an_array_that_is_not_there_yet_is_made(jax: Any, after: Any) -> None:
    """Such as losses that a loop appends to a list."""
    before = [jax.numpy.asarray(2.5), (jax.numpy.ones(2),)] if after == [] else jax.numpy.ones(3)
    back = saved_and_restored(before, after)
    assert jax.tree.structure(back) == jax.tree.structure(before)
    assert isinstance(jax.tree.leaves(back)[0], jax.Array)


def test_an_array_of_numpy_with_a_foreign_dtype_is_refused(jax: Any) -> None:
    for name in ("float8_e5m2", "bfloat16"):
        array = np.zeros(3, jax.numpy.dtype(name))
        with pytest.raises(InputError, match=r"value is a numpy\.ndarray.*without pickle"):
            Checkpoint(MemoryStorage(), "runs/r/nodes/n").save({"value": array})


def test_an_array_that_was_donated_is_refused(jax: Any) -> None:
    array = jax.numpy.ones(3)
    array.delete()
    with pytest.raises(InputError, match=r"value\[0\] was donated to a call of JAX"):
        Trial().attempt(lambda track: track(value=[array]))


def test_a_value_inside_of_jit_is_refused(jax: Any) -> None:
    def inside(x: Any) -> Any:
        Trial().attempt(lambda track: track(value=x))
        return x

    with pytest.raises(InputError, match=r"value is a value inside of jax\.jit"):
        jax.jit(inside)(1.0)
