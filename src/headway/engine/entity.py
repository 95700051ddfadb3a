"""What tasks and workflows have in common: a name other processes find, a signature, three ways to be
called."""

from __future__ import annotations

import difflib
import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Generic, ParamSpec, Self, TypeVar, cast

from headway.engine import context, launch, programs, tracing
from headway.engine.signature import Interface
from headway.engine.tracing import Trace
from headway.model.errors import DefinitionError, InputError
from headway.model.events import NodePlan

P = ParamSpec("P")
R = TypeVar("R")


class Entity(ABC, Generic[P, R]):
    """A task or a workflow, called like the function it was made from.

    While a workflow's graph is drawn a call gives promises. In the body of a running task it is a
    plain call. Anywhere else it starts a durable run, waits for it and returns its value.

    Attributes:
        function: the function itself.
        interface: its signature.
        name: `module:qualname`, by which other processes find it.

    Raises:
        DefinitionError: other processes could not find the function, or its signature cannot be used.
    """

    kind: ClassVar[str]
    __name__: str
    __module__: str
    __qualname__: str

    def __init__(self, function: Callable[P, R]) -> None:
        require_plain(function, self.kind)
        functools.update_wrapper(self, function)
        self.function = function
        self.interface = Interface.of(function)
        self.name = f"{programs.public_name(function.__module__)}:{function.__qualname__}"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        trace = tracing.current()
        if trace is not None:
            try:
                bound = self.interface.bind(args, kwargs)
            except InputError as error:
                raise DefinitionError(str(error)) from error
            return cast("R", self.traced(trace, bound))
        if context.in_body():
            return self.inside(*args, **kwargs)
        return cast("R", launch.launch(self, args, kwargs))

    def __get__(self, instance: object, owner: type | None = None) -> Self:
        # Having this makes `help` and doctest take it for a routine and show the function's own text.
        return self

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"

    def again(self, plans: Sequence[NodePlan]) -> Entity[P, R]:  # noqa: ARG002
        """It as a run has it that goes on; `plans` is what the run had planned."""
        return self

    @abstractmethod
    def expand(self, trace: Trace, bound: dict[str, Any]) -> Any:
        """Draw it as a whole graph; what it returns."""

    @abstractmethod
    def traced(self, trace: Trace, bound: dict[str, Any]) -> Any:
        """Draw a call of it inside a workflow; the call's promises."""

    @abstractmethod
    def inside(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call it in the body of a running task."""


def require_plain(function: Any, kind: str) -> None:
    """Refuse what other processes cannot find by name, or what does not run like a function.

    Raises:
        DefinitionError: says which, and what to write instead.
    """
    article = f"@{kind}"
    if isinstance(function, Entity):
        raise DefinitionError(
            f"{function!r} is decorated already: one of @task, @workflow is enough"
        )
    if not inspect.isfunction(function):
        raise DefinitionError(
            f"{article} is for functions, and {function!r} is a {type(function).__name__}"
        )
    name = function.__qualname__
    if "<lambda>" in name:
        raise DefinitionError(
            f"{article} on a lambda: workers find tasks by name, and a lambda has none. Use `def` at "
            "the top level of a module."
        )
    if "<locals>" in name:
        raise DefinitionError(
            f"{article} on {name.rpartition('.')[2]}, which is defined inside "
            f"{name.partition('.<locals>')[0]}: workers import it by name and could not find it. Move "
            "it to the top level of a module, and pass what it needs as parameters."
        )
    if "." in name:
        raise DefinitionError(
            f"{article} on the method {name}: a worker would not have its object. Use a function at "
            "the top level of a module that takes what it needs as parameters."
        )
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise DefinitionError(
            f"{article} on the async function {name}: each attempt has a process of its own, with no "
            "event loop. Use `def`, and `asyncio.run(…)` inside it."
        )
    if inspect.isgeneratorfunction(function):
        raise DefinitionError(
            f"{article} on the generator {name}: its value would be the generator, which cannot be "
            "stored. Return a list."
        )


def refuse_unknown(kind: str, unknown: Iterable[str], known: Iterable[str]) -> None:
    """Refuse options that a decorator does not have.

    Raises:
        DefinitionError: there is one; the message names the nearest that exists.
    """
    options = list(known)
    for name in unknown:
        close = difflib.get_close_matches(name, options, n=1)
        has = f"it has {', '.join(options)}" if options else "it has none"
        hint = f"did you mean {close[0]!r}?" if close else has
        raise DefinitionError(f"@{kind} has no option {name!r}; {hint}")
