"""A bounded window of batches on Dask: a few in flight, results as they come, lost workers survived.

A plain future costs 2.5 ms where a Prefect task run on Dask costs 85, and a window keeps scheduler
and client at the same memory for a million tracks as for ten.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from flows.running.processes import Ended, ProcessDied, Processes
from storage.errors import ModelLost, OutputError, StorageError

log = logging.getLogger("unbraid.fanout")

Item = TypeVar("Item")
WINDOW_PER_SLOT = 2
_WITHOUT_WORKERS = 120.0  # seconds that a run waits for a worker when it has lost all
_LOOK_SECONDS = 5.0
_CONNECTION_LOST = "scheduler-connection-lost"  # Dask's word
_CHANCES = 2  # alone; nothing beside it can be the cause there, but someone may have killed the worker


class SchedulerLost(StorageError):
    """The scheduler went away in the middle of a run."""


class WorkersLost(StorageError):
    """The last worker went away in the middle of a run, and none came in its place."""


@dataclass(frozen=True)
class Outcome(Generic[Item]):
    """What became of a batch: its `results`, or the sentence `lost` for the one item that cannot be done."""

    items: list[Item]
    results: list[Any] = field(default_factory=list)
    lost: str | None = None


def fan_out(
    client,
    function: Callable[[list[Item]], list[Any]],
    batches: Iterable[list[Item]],
    *,
    window: int,
    resources: dict[str, float] | None = None,
    then: Callable[[list[Item], list[Any]], list[Any]] | None = None,
    follows: Callable[[list[Item]], bool] = lambda batch: True,
) -> Iterator[Outcome[Item]]:
    """Run `function(batch)` for every batch, at most `window` in flight, and yield outcomes as they end.

    A lost batch (its worker died, or `function` raised) is run again item by item. An item that dies with a worker may
    be a bystander, so an item that is lost again waits until the others are done and runs with nothing beside it; lost
    there `_CHANCES` times, it is yielded as lost.

    Args:
        client: A Dask client, or the `Processes` of a small run.
        function: Takes a batch and returns its results; must be picklable.
        batches: The batches, taken from the iterable only as the window has room.
        window: The most batches in flight.
        resources: The worker resources that `function` needs, such as {"GPU": 1}; `then` needs none.
        then: `then(batch, results)` runs as a separate future on any free worker; its results are yielded instead.
        follows: Whether `then` follows for a batch.

    Yields:
        One outcome per batch that succeeded or item that was lost, in the order in which they end.

    Raises:
        SchedulerLost: The scheduler went away for good.
        WorkersLost: No worker has been left for `_WITHOUT_WORKERS` seconds.
        OutputError: A batch could not write to the output, which no other batch could either.
        ModelLost: A batch did not find the run's model, which no other batch would find either.
    """
    waiting = iter(batches)
    again: list[list[Item]] = []
    alone: list[tuple[Item, int]] = []
    running = Ended(client) if isinstance(client, Processes) else _Futures(client)
    flying: dict[str, tuple[list[Item], int]] = {}  # batch, and its chances left where it runs alone

    def launch() -> bool:
        batch, chances = again.pop() if again else next(waiting, None), 0
        if batch is None:
            if flying or not alone:
                return False
            item, chances = alone.pop()
            batch = [item]
        # Dask would answer a pure call it has seen from memory; every batch here must really run.
        future = running.submit(function, batch, pure=False, resources=resources, retries=0)
        if then is not None and follows(batch):
            future = running.submit(then, batch, future, pure=False, retries=0)
        flying[future.key] = batch, chances
        running.add(future)
        return True

    while len(flying) < window and launch():
        pass
    while flying:
        future = next(running)
        batch, chances = flying.pop(future.key)
        outcome = None
        try:
            # A finished future can still raise: the worker that held its result may have died since.
            outcome = Outcome(batch, results=future.result())
        except (OutputError, ModelLost):  # every batch would end like this
            raise
        except Exception as error:
            log.debug("batch of %d lost: %s", len(batch), error)
            if running.cut_off(error):  # not the batch's fault
                if chances:
                    alone.append((batch[0], chances))
                else:
                    again.append(batch)
            elif len(batch) > 1:
                again += [[item] for item in reversed(batch)]
            elif not _worker_died(error) or chances == 1:
                outcome = Outcome(batch, lost=_sentence(error))
            else:
                alone.append((batch[0], chances - 1 if chances else _CHANCES))
        future.release()
        if outcome is not None:
            yield outcome
        while len(flying) < window and launch():
            pass


class _Futures:
    """Dask futures as they end; futures may be added meanwhile."""

    def __init__(self, client) -> None:
        from distributed import as_completed

        self._client, self._address = client, client.scheduler.address
        self._without_workers: float | None = None  # since when
        self._looked = time.monotonic()
        self._futures = as_completed(loop=client.loop, with_results=False)

    def submit(self, *arguments: Any, **options: Any) -> Any:
        """Submit a call to the client. Raises SchedulerLost when the client has given its scheduler up."""
        from distributed.client import ClosedClientError

        try:
            return self._client.submit(*arguments, **options)
        except ClosedClientError as error:
            raise self._lost() from error

    def add(self, future) -> None:
        self._futures.add(future)

    def cut_off(self, error: Exception) -> bool:
        """Tell a batch that ended with the connection to the scheduler from one that ended with its worker.

        A client without its scheduler cancels all futures, and looks for it for a while before it closes.

        Args:
            error: What the batch's future raised.

        Returns:
            Whether the connection was lost, and is there again.

        Raises:
            SchedulerLost: It was lost for good.
        """
        from distributed.client import FutureCancelledError

        if not isinstance(error, FutureCancelledError):
            return False
        if error.reason != _CONNECTION_LOST and self._client.status == "running":
            return False
        while self._client.status != "running":
            if self._client.status == "closed":
                raise self._lost() from error
            time.sleep(0.1)
        return True

    def _lost(self) -> SchedulerLost:
        return SchedulerLost(
            f"the Dask scheduler {self._address} was lost; what is finished is kept, and the same command goes on from "
            "there"
        )

    def __next__(self):
        """The next future that has ended. Dask's own iterator would wait forever for a scheduler that is gone."""
        while not self._futures.has_ready():
            if self._client.status == "closed":
                raise self._lost()
            self._await_workers()
            with self._futures.thread_condition:
                self._futures.thread_condition.wait(timeout=0.1)
        return next(self._futures)

    def _await_workers(self) -> None:
        """Say once that the last worker is gone.

        Raises:
            WorkersLost: No other one has come for `_WITHOUT_WORKERS` seconds.
        """
        if time.monotonic() - self._looked < _LOOK_SECONDS or self._client.status != "running":
            return
        self._looked = time.monotonic()
        try:
            known = self._client.scheduler_info(n_workers=-1)
        except OSError:  # the scheduler went away at this moment; the client's status will say so
            return
        # A client that has lost its scheduler knows nothing. A worker that is only starting may die of it, again and
        # again, and one that Dask has paused may stay so: neither is one.
        workers = known.get("workers")
        if workers is None or any(worker["status"] == "running" for worker in workers.values()):
            self._without_workers = None
            return
        if self._without_workers is None:
            self._without_workers = time.monotonic()
            sentence = f"no worker is ready at {self._address}; waiting {_WITHOUT_WORKERS:.0f} s for another one"
            print(f"unbraid: {sentence}", file=sys.stderr, flush=True)
        elif time.monotonic() - self._without_workers > _WITHOUT_WORKERS:
            remedy = f"start some with `unbraid worker {self._address}`"
            if self._client.cluster is not None:  # the run's own
                remedy = "they die as they start: is there memory left, also by --memory? UNBRAID_LOG=1 shows more"
            raise WorkersLost(
                f"no worker has been ready at {self._address} for {_WITHOUT_WORKERS:.0f} s; what is finished is kept, "
                f"and the same command goes on from there; {remedy}"
            )


def _worker_died(error: Exception) -> bool:
    if isinstance(error, ProcessDied):
        return True
    from distributed.client import FutureCancelledError
    from distributed.scheduler import KilledWorker

    return isinstance(error, (KilledWorker, FutureCancelledError))


def _sentence(error: Exception) -> str:
    if _worker_died(error):
        return "the worker process died while working on it each time (crash, out of memory, or past its deadline)"
    return f"{type(error).__name__}: {error}"
