"""A flow over the fields of a settings class, under Prefect."""

import functools
import logging
import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NoReturn

import httpx
from prefect import Flow
from prefect.states import Cancelled, Completed, Failed, State

from flows.running.artifacts import run_name
from flows.running.environment import is_quiet, prefect_server
from flows.running.orphans import own_is_lost
from flows.running.parameters import Checked, Options, Result, SettingsFlow
from storage.errors import OutputInUse, StorageError

WITH_FAILURES = "CompletedWithFailures"

# The settings that this process has checked before it asked Prefect for the run, and what the check returned.
_checked: ContextVar[tuple[Any, Any] | None] = ContextVar("checked", default=None)


class ServerLost(StorageError):
    """The Prefect server went away before a flow came to its end."""


class PrefectFlow(SettingsFlow[Options, Checked, Result], Flow):
    """A Prefect flow that takes the fields of a settings class as parameters, and gives its function the settings.

    Called in Python it makes the settings, and so refuses what cannot be, before Prefect is asked for anything.
    A run of a deployment is refused by the API, which has the same bounds and choices, or as its function begins.
    A run with failed tracks ends in a state of the name CompletedWithFailures, which automations see; it is of the
    type Failed where no track at all was done. A deployment's run over an output that another run is writing to is
    Cancelled: so the limit of one run at a time is each output's, and not the deployment's.
    """

    def __init__(
        self,
        function: Callable[[Options, Checked], Result],
        settings: type[Options],
        name: str,
        check: Callable[[Options], Checked],
    ) -> None:
        SettingsFlow.__init__(self, function, settings, name, check)
        self._ended = threading.local()  # what the function returned in this thread

        @functools.wraps(function)
        def flat(*args: Any, **kwargs: Any) -> Result | State:
            called = hasattr(self._ended, "results")  # in Python, where the error itself is expected
            try:
                result = function(*self._options_and_check(args, kwargs))
            except OutputInUse as error:
                if called:
                    raise
                return Cancelled(message=str(error))
            finally:
                if own_is_lost():
                    _ask_no_more()
            self._ended.results = [result]
            return final_state(result) or result

        flat.__signature__ = self.__signature__  # type: ignore[attr-defined]
        flat.__annotations__ = {}
        flat.__doc__ = self.__doc__

        def naming() -> str:
            from prefect.runtime import flow_run  # Prefect calls without arguments and keeps the parameters here

            return run_name(name, flow_run.parameters or {})

        Flow.__init__(self, fn=flat, name=name, validate_parameters=False, flow_run_name=naming)

    def _options_and_check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Options, Checked]:
        """The settings of a call and what their check returns: from `__call__`, where it has just checked the same
        settings. A retry checks anew.
        """
        options, checked = self.options(args, kwargs), _checked.get()
        _checked.set(None)
        if checked is not None and checked[0] == options:
            return options, checked[1]
        return options, self.check(options)

    def __call__(self, *args: Any, return_state: bool = False, wait_for: Any = None, **kwargs: Any) -> Any:
        """Run with the settings' fields by name, those without a default also by position.

        Where the server was lost on the way the run goes on to its end all the same: its results are on the disk.

        Raises:
            SettingsError: A value that cannot be.
            ServerLost: The server was lost before the function came to its end.
            Exception: What the flow's check raises, before Prefect is asked for anything, or its function.
        """
        options = self.options(args, kwargs)
        checked = self.check(options)
        _without_tracebacks()
        self._ended.results = []
        token = _checked.set((options, checked))
        try:
            state: Any = super().__call__(return_state=True, wait_for=wait_for, **options.values())
        except httpx.TransportError as error:
            server = prefect_server() or "of this run"
            if self._ended.results:
                sentence = f"unbraid: the Prefect server {server} was lost and does not know that this run ended"
                print(sentence, file=sys.stderr, flush=True)
                return self._ended.results[0]
            raise ServerLost(
                f"the Prefect server {server} does not answer ({error}); what is finished is kept, and the same "
                "command goes on from there"
            ) from error
        finally:
            _checked.reset(token)
        if return_state:
            return state
        return self._ended.results[0] if self._ended.results else state.result()


def final_state(result: Any) -> State | None:
    """The final Prefect state of a run with failed tracks.

    Args:
        result: What the flow returned; a summary counts tracks in `done` and `failed`.

    Returns:
        A state named CompletedWithFailures, of the type Failed where no track was done; None where none has failed, and
        Prefect's own state is right.
    """
    failed = getattr(result, "failed", 0)
    if not failed or not isinstance(failed, int):
        return None
    done = getattr(result, "done", 0)
    message = f"{done} tracks done, {failed} failed; the rows say why"
    return (Completed if done else Failed)(name=WITH_FAILURES, message=message, data=result)


def _ask_no_more() -> None:
    """Let every further request of the present flow run fail at once.

    Its embedded server is gone and does not come back; Prefect would try twice to tell it how the run ended, with
    pauses, for ten seconds.
    """
    from prefect.context import FlowRunContext

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise httpx.ConnectError("the embedded server is gone")

    context = FlowRunContext.get()
    client = getattr(getattr(context, "client", None), "_client", None)
    if client is not None:
        client.send = refuse


def _without_tracebacks() -> None:
    """A server that is lost is one sentence, and not pages of tracebacks and of events that it was not told."""
    if is_quiet():
        for name in ("prefect.flow_runs", "prefect.task_runs"):
            logging.getLogger(name).addFilter(_cut_traceback)
        logging.getLogger("prefect._internal.concurrency").addFilter(lambda record: False)


def _cut_traceback(record: logging.LogRecord) -> bool:
    record.exc_info = record.exc_text = record.stack_info = None
    return True
