"""Phases of a flow: Prefect's task runs under Prefect, plain calls otherwise."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from flows.running.environment import with_prefect
from flows.running.orphans import own_is_lost

Function = TypeVar("Function", bound=Callable[..., Any])


def phase(name: str) -> Callable[[Function], Function]:
    """The decorator that makes a function a phase of a flow.

    Args:
        name: The name of its task runs in Prefect.

    Returns:
        A decorator. Where no Prefect server is configured it leaves the function as it is, and Prefect is not imported:
        that alone would take longer than a short song.
    """
    if not with_prefect():
        return lambda function: function
    from prefect import task
    from prefect.cache_policies import NO_CACHE

    def decorate(function: Function) -> Function:
        under_prefect = task(name=name, cache_policy=NO_CACHE)(function)

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            # A server that is gone would be called, and waited for, at the beginning and the end of every phase.
            return (function if own_is_lost() else under_prefect)(*args, **kwargs)

        return run  # type: ignore[return-value]

    return decorate
