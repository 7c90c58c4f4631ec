"""Where work runs: worker processes of this machine, or a Dask scheduler by address."""

import contextlib
import logging
import os
import platform
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from flows.running import environment
from flows.running.fanout import WINDOW_PER_SLOT
from flows.running.nannies import killed_at_the_end, replenished
from flows.running.processes import Processes
from storage.errors import StorageError
from storage.files.location import is_url
from tasks.cores import Sharing, available_cores, gpu_bytes, local_gpu, shared_gpu, shared_out
from tasks.settings import ModelRequest, is_weights_file
from tasks.worker import prepare, unseen

_START_SECONDS = 60
_REGISTER_TIMES, _REGISTER_SECONDS = 60, 0.5
_GREET_SECONDS = 15.0
# A nanny restarts its worker by itself. Dask closes one that has not done so after this long and starts another beside
# it, which on a busy machine, where every start takes long, would start two workers for each that was lost.
_LOST_AFTER = "300s"

# Of the resource GPU, which a worker offers once: a training takes all of it, separations as many shares as a process
# has threads for them.
GPU_TO_TRAIN, GPU_TO_SEPARATE = {"GPU": 1.0}, {"GPU": 1 / 16}


# What local processes import as they start, whatever they are told later.
SEPARATING, MASHING = ("tasks.separate", "tasks.loading"), ("tasks.mashup.render",)


class ClusterError(StorageError):
    """A Dask scheduler cannot be reached, or has no worker that would do."""


@dataclass(frozen=True)
class Cluster:
    """A connected client; `slots` tracks run at a time. `address` is None where the workers are this run's own."""

    client: Any
    slots: int
    address: str | None = None

    @property
    def window(self) -> int:
        """Batches in flight: enough that no worker waits, few enough for a restart to lose."""
        return max(2, WINDOW_PER_SLOT * self.slots)

    def offering(self, resource: str) -> "Cluster":
        """The part of the cluster whose workers offer a resource.

        Args:
            resource: The resource's Dask name, such as "GPU".

        Returns:
            The same client with `slots` counting those workers' threads alone: 0 where no worker offers the resource.
        """
        if isinstance(self.client, Processes):
            return replace(self, slots=0)
        workers = self.client.scheduler_info(n_workers=-1).get("workers", {}).values()
        return replace(self, slots=sum(w["nthreads"] for w in workers if resource in w.get("resources", {})))

    def device(self, requested: str) -> str:
        """The one device that all workers use where results are compared.

        Args:
            requested: "auto", "cpu", "cuda" or "mps".

        Returns:
            "cuda" where workers offer a GPU and it may be used ("mps" where that was requested), "cpu" on a cluster
            without; for workers of this machine what was requested, since they are all alike.

        Raises:
            ClusterError: A GPU is requested of a cluster whose workers offer none.
        """
        if requested == "cpu" or self.offering("GPU").slots:
            return "cuda" if requested == "auto" else requested
        if self.address is None:
            return requested
        if requested != "auto":
            raise ClusterError(f"no worker at {self.address} offers a GPU; start one with `unbraid worker --gpu`")
        return "cpu"

    def must_see(self, *paths: str) -> None:
        """Make sure that the workers of a cluster see what this process sees.

        Args:
            paths: Files and folders by absolute paths. Objects of a store are not looked for.

        Raises:
            ClusterError: A worker does not see one of them.
        """
        if self.address is None:
            return
        for worker, missing in self.client.run(unseen, [path for path in paths if not is_url(path)]).items():
            if missing:
                raise ClusterError(
                    f"the worker {worker} does not see {missing[0]}; what a run reads and writes must have the same "
                    "path on all machines (a shared file system, or URLs of an object store)"
                )


def address_of(address: str | None) -> str | None:
    """The address of the Dask scheduler to use.

    Args:
        address: The address given, e.g. "tcp://host:8786"; None or "" for that of UNBRAID_DASK.

    Returns:
        The address, None where work runs on this machine.
    """
    return address or os.environ.get("UNBRAID_DASK") or None


@contextlib.contextmanager
def cluster(
    address: str | None = None,
    *,
    model: ModelRequest | None = None,
    workers: int | None = None,
    tracks: int | None = None,
    resources: dict[str, float] | None = None,
    memory: str = "auto",
    small: bool = False,
    ahead: Processes | None = None,
) -> Iterator[Cluster]:
    """Connect to a Dask scheduler, or start worker processes here and end them afterwards.

    Args:
        address: The scheduler's address; UNBRAID_DASK where None, and this machine where that is not set either.
        model: The separator that every worker loads as it starts; None for none.
        workers: How many processes to start here. None for as many as there are cores, or as feed the GPU where the
            model runs on one (`tasks.cores.shared_gpu`); these take several tracks at a time.
        tracks: How many tracks there are to do; no more processes than that are started.
        resources: The Dask resources that each local worker offers, such as {"GPU": 1}.
        memory: The limit of each local worker, e.g. "4GB"; one that comes near it is ended and replaced. "auto" shares
            out the machine's memory.
        small: Whether the work is over before Dask would have started: local processes without a scheduler do it.
        ahead: Processes that `processes_ahead` has started for this work, which then does nothing else but end them.

    Yields:
        The connected cluster. Local workers share out the cores among themselves as torch threads.

    Raises:
        ClusterError: Nothing answers at the address, the scheduler there has no workers, one of them does not see the
            model's file, no local worker starts, or `memory` is not a size.
        ModelError: The model is to run on a GPU that is not here.
    """
    address = address_of(address)
    if address is None and (ahead is not None or small):
        started = _processes(model, workers, tracks, memory) if ahead is None else ahead
        with contextlib.closing(started):
            yield Cluster(started, len(started))
        return
    sharing = Sharing(1, 1, 1) if address else sharing_here(model, workers, tracks)
    count = sharing.processes
    import dask
    from distributed import Client, LocalCluster

    from tasks.plugin import ResidentModel

    # One loss is a verdict on the batch; the fan-out decides what is tried again, track by track.
    settings = {"distributed.scheduler.allowed-failures": 0, "distributed.deploy.lost-worker-timeout": _LOST_AFTER}
    settings |= environment.WORKER_MEMORY
    settings |= {f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in environment.WORKERS.items()}
    # A user's own tasks.py or model/ in the present folder must not be taken for ours.
    settings |= {"distributed.nanny.pre-spawn-environ.PYTHONSAFEPATH": "1"}
    if not address:
        # Local runs serve no pages: what is left of the HTTP server answers nothing.
        settings |= {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}
    if environment.is_quiet():
        for library in ("tornado.application", "asyncio", "distributed.client"):  # a traceback for every lost worker
            logging.getLogger(library).setLevel(logging.CRITICAL)
    with dask.config.set(settings), contextlib.ExitStack() as stack:
        if address:
            _greet(address)
            try:
                client = stack.enter_context(Client(address, timeout="15s", set_as_default=False))
            except (OSError, ValueError) as error:
                raise ClusterError(f"no Dask scheduler answers at {address} ({error}); check --dask") from error
        else:
            if platform.system() == "Linux" and not os.access("/dev/shm", os.W_OK):
                raise ClusterError("/dev/shm cannot be written to, and worker processes need it; mount it writable")
            local = stack.enter_context(
                LocalCluster(
                    n_workers=0,  # a worker that is killed while it starts would break the cluster's own start
                    # A deadline ends the process, so it has one track, or as many as a GPU needs side by side.
                    threads_per_worker=sharing.files,
                    processes=True,
                    host="127.0.0.1",  # nothing listens but on loopback
                    dashboard_address="127.0.0.1:0",  # any free port: two runs must not quarrel over one
                    scheduler_kwargs={"dashboard": False},
                    resources=resources,
                    memory_limit=_size(memory),
                    silence_logs=50,
                )
            )
            client = stack.enter_context(Client(local, set_as_default=False))
            stack.enter_context(killed_at_the_end(local))
            stack.enter_context(replenished(local, count))
            _wait(client, count)
        slots = sum(client.nthreads().values())
        if address and not slots:
            raise ClusterError(f"the scheduler at {address} has no workers; start some with `unbraid worker {address}`")
        where = Cluster(client, slots if address else count * sharing.files, address)
        if model is not None and is_weights_file(model.model):
            where.must_see(model.model)
        _register(client, ResidentModel(model, sharing.threads, quiet=not address))
        yield where


def sharing_here(model: ModelRequest | None, workers: int | None = None, tracks: int | None = None) -> Sharing:
    """How this machine is shared out among worker processes.

    Args:
        model: The separator that they hold; None where the work needs none.
        workers: How many processes are asked for; None to choose.
        tracks: How many tracks there are to do; None where nobody knows.

    Raises:
        ModelError: The model is to run on a GPU that is not here.
    """
    gpu = None if model is None else local_gpu(model.device)
    if model is None or gpu is None:
        return shared_out(available_cores(), workers=workers, tracks=tracks)
    sharing = shared_gpu(available_cores(), _memory_here(), gpu_bytes(gpu), workers=workers, tracks=tracks)
    # Other projects' separators (`family:model`) share no batches: one track at a time.
    return replace(sharing, files=1) if ":" in model.model else sharing


def _greet(address: str) -> None:
    """Exchange a first word with a scheduler. Dask's client would wait forever for one that accepts and is silent.

    Raises:
        ClusterError: The scheduler does not answer within `_GREET_SECONDS`.
    """
    import asyncio

    from distributed.comm import connect

    async def greet() -> None:
        comm = await asyncio.wait_for(connect(address, timeout=_GREET_SECONDS), _GREET_SECONDS)
        comm.abort()

    answers = Future[None]()

    def ask() -> None:
        try:
            asyncio.run(greet())
            answers.set_result(None)
        except Exception as error:
            answers.set_exception(error)

    # A thread of its own, since a notebook's main thread has a loop that runs; a daemon, since it may never end.
    threading.Thread(target=ask, daemon=True).start()
    try:
        answers.result(timeout=_GREET_SECONDS + 1)
    except (OSError, ValueError, TimeoutError) as error:
        reason = str(error) or f"silent for {_GREET_SECONDS:.0f} s"
        raise ClusterError(f"no Dask scheduler answers at {address} ({reason}); check --dask") from error


@contextlib.contextmanager
def processes_ahead(
    address: str | None = None,
    *,
    model: ModelRequest | None = None,
    workers: int | None = None,
    tracks: int | None,
    memory: str = "auto",
) -> Iterator[Processes | None]:
    """Start the processes of a small run while it is still being planned, and end them with the body at the latest.

    Args:
        address: As `cluster` takes it; a scheduler's workers are there already.
        model: The separator that every process loads.
        workers: How many processes; as many as there are cores where None.
        tracks: How many tracks there are to do; None where that is not known to be few.
        memory: As `cluster` takes it.

    Yields:
        The processes, for `cluster`; None where nothing is started ahead.

    Raises:
        ClusterError: `memory` is not a size.
        ModelError: The model is to run on a GPU that is not here.
    """
    if tracks is None or address_of(address) is not None:
        yield None
        return
    with contextlib.closing(_processes(model, workers, tracks, memory)) as processes:
        yield processes


@contextlib.contextmanager
def one_process(modules: Sequence[str]) -> Iterator[Cluster]:
    """A process for one piece of work, whose threads use the cores, beside whatever else this run starts.

    Args:
        modules: What it imports at once.

    Yields:
        A cluster of this process.
    """
    # One thread of torch's: several would wait for each other in every small step.
    process = Processes(
        1, environment=environment.WORKERS, modules=modules, setup=partial(prepare, None, 1),
        quiet=environment.is_quiet(),
    )  # fmt: skip
    with contextlib.closing(process):
        yield Cluster(process, 1)


def _processes(model: ModelRequest | None, workers: int | None, tracks: int | None, memory: str) -> Processes:
    """Worker processes without a scheduler, which share out the cores."""
    sharing = sharing_here(model, workers, tracks)
    return Processes(
        sharing.processes,
        environment=environment.WORKERS,
        modules=SEPARATING if model is not None else (),
        setup=partial(prepare, model, sharing.threads),
        memory=_memory_here() // available_cores() if memory == "auto" else int(_size(memory)),
        quiet=environment.is_quiet(),
    )


def _memory_here() -> int:
    """Bytes of memory that this process may use: the machine's, or its control group's where that is less."""
    limits = [psutil.virtual_memory().total]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # "max" is no number
            limits.append(int(Path(path).read_text()))
    return min(limits)


def _wait(client, count: int) -> None:
    """Wait until all local workers are up or, where some are killed as they start, at least one.

    Raises:
        ClusterError: No worker has started.
    """
    for workers, seconds in ((count, _START_SECONDS), (1, _START_SECONDS)):
        try:
            return client.wait_for_workers(workers, timeout=seconds)
        except TimeoutError:
            continue
    raise ClusterError("no worker process could be started; is there memory left? UNBRAID_LOG=1 shows more")


def _register(client, plugin) -> None:
    """Set up the workers that are there and those that come later. One that is lost meanwhile is replaced later.

    Raises:
        ClusterError: Workers are lost again and again.
    """
    from distributed.comm.core import CommClosedError

    for _ in range(_REGISTER_TIMES):
        try:
            client.register_plugin(plugin)
        except (CommClosedError, TimeoutError):
            time.sleep(_REGISTER_SECONDS)
            continue
        return
    raise ClusterError("workers are lost as soon as they start; is there memory left? UNBRAID_LOG=1 shows more")


def _size(memory: str) -> str | int:
    """A limit as Dask takes it. Raises ClusterError."""
    from dask.utils import parse_bytes

    try:
        return memory if memory == "auto" else parse_bytes(memory)
    except ValueError as error:
        raise ClusterError(f"{memory} is not a size of memory; write it as 4GB or 500MB") from error
