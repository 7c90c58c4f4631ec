"""A few worker processes without a scheduler: for a run so small that starting Dask would take longer than the run.

The guarantees are those of the Dask cluster (`flows/running/cluster.py`): a process does one batch at a time, so one
that dies affects no other, and is replaced; one that comes near its memory limit is ended; nothing listens.
"""

import contextlib
import itertools
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import psutil

from storage.errors import StorageError

_LOOK_SECONDS = 0.25
_NEAR = 0.95  # of the memory limit, as Dask's nannies have it
_STARTS = 3  # of a process in a row that die before they have answered anything


class ProcessDied(Exception):
    """The worker process ended in the middle of a call: a crash, out of memory, or past its deadline."""


class Call:
    """What becomes of one function call; done when it has a result or an error."""

    def __init__(self, key: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.key = key
        self.function, self.arguments = function, arguments
        self._done = False
        self._result: Any = None
        self._error: BaseException | None = None

    def done(self) -> bool:
        return self._done

    def end(self, result: Any = None, error: BaseException | None = None) -> None:
        """Set the outcome of the call, which is done from here on.

        Args:
            result: What the function returned.
            error: What it raised, or `ProcessDied`; None where it returned.
        """
        self._done, self._result, self._error = True, result, error

    def result(self) -> Any:
        """The result of a call that is done; raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._result

    def release(self) -> None:
        self._result = None


_spare: list["_Process"] = []


@contextlib.contextmanager
def spare_processes(
    count: int, *, environment: Mapping[str, str], modules: Sequence[str], quiet: bool
) -> Iterator[None]:
    """Start processes for whoever wants some in the body: what they import takes as long as working out what is to do.

    `Processes` takes those with its own modules before it starts others. Those that nobody has taken end with the body.

    Args:
        count: How many processes.
        environment: As `Processes` takes it from whoever makes one in the body.
        modules: What they import at once.
        quiet: Whether their standard output and standard error are discarded.
    """
    try:
        _spare.extend(_Process(environment, quiet, modules) for _ in range(count))
        yield
    finally:
        while _spare:
            process = _spare.pop()
            process.kill()
            process.wait()


class Processes:
    """Worker processes that take calls in the order they are submitted.

    Args:
        count: How many processes.
        environment: Environment variables that they get in addition to this process's.
        modules: What every process imports as it starts.
        setup: Called in every process as it starts, before any other call.
        memory: Bytes of resident memory near which a process is ended; None for no limit.
        quiet: Whether their standard output and standard error are discarded.
    """

    def __init__(
        self,
        count: int,
        *,
        environment: Mapping[str, str],
        modules: Sequence[str] = (),
        setup: Callable[[], None] | None = None,
        memory: int | None = None,
        quiet: bool = True,
    ) -> None:
        self._environment, self._modules, self._setup = environment, tuple(modules), setup
        self._memory, self._quiet = memory, quiet
        self._numbers = itertools.count()
        self._waiting: deque[Call] = deque()
        self._stillborn = 0
        self._processes = [self._start() for _ in range(count)]

    def __len__(self) -> int:
        return len(self._processes)

    def submit(self, function: Callable[..., Any], *arguments: Any, **_: Any) -> Call:
        """Queue a call for the first process that is free.

        Args:
            function: What to call there; a picklable function.
            arguments: Its arguments. One that is a `Call` is replaced by its result, and is waited for.

        Returns:
            The call. Keyword arguments are those of Dask's `Client.submit` and have no effect.
        """
        call = Call(f"call-{next(self._numbers)}", function, arguments)
        self._waiting.append(call)
        self._feed()
        return call

    def step(self, seconds: float) -> None:
        """Take in what the processes have answered, end those near their memory limit, and hand out waiting calls.

        Args:
            seconds: The longest to wait for an answer.

        Raises:
            StorageError: No process starts.
            Exception: What `setup` raised in a process.
        """
        answering = {process.connection: process for process in self._processes}
        for connection in wait(list(answering), timeout=seconds):
            self._hear(answering[connection])  # type: ignore[index]
        for process in self._processes:
            if self._memory is not None and process.memory() > _NEAR * self._memory:
                process.kill()
        self._feed()

    def close(self) -> None:
        """End all processes, in the middle of what they do."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        self._processes = []

    def _start(self) -> "_Process":
        process = next((spare for spare in _spare if spare.modules == self._modules), None)
        if process is None:
            process = _Process(self._environment, self._quiet, self._modules)
        else:
            _spare.remove(process)
        if self._setup is not None:
            process.set_up(self._setup)
        return process

    def _feed(self) -> None:
        for process in self._processes:
            if process.call is None:
                call = next((call for call in self._waiting if _ready(call)), None)
                if call is None:
                    return
                self._waiting.remove(call)
                try:
                    arguments = tuple(a.result() if isinstance(a, Call) else a for a in call.arguments)
                except Exception as error:  # what it follows has failed
                    call.end(error=error)
                    continue
                process.give(call, arguments)

    def _hear(self, process: "_Process") -> None:
        try:
            well, answer = process.connection.recv()
        except Exception:  # closed; or half of an answer, by one that died while it wrote it
            self._replace(process)
            return
        self._stillborn = 0
        call, process.call = process.call, None
        if process.starting:
            process.starting = False
            if not well:
                raise answer
        elif call is not None:
            call.end(answer) if well else call.end(error=answer)

    def _replace(self, process: "_Process") -> None:
        process.kill()
        process.wait()
        if process.starting:
            self._stillborn += 1
        if self._stillborn >= _STARTS * len(self._processes):
            raise StorageError("no worker process could be started; is there memory left? UNBRAID_LOG=1 shows more")
        if process.call is not None:
            process.call.end(error=ProcessDied())
        self._processes[self._processes.index(process)] = self._start()


def _ready(call: Call) -> bool:
    return all(argument.done() for argument in call.arguments if isinstance(argument, Call))


class _Process:
    """One worker process and the call it is at."""

    def __init__(self, environment: Mapping[str, str], quiet: bool, modules: Sequence[str]) -> None:
        self.modules = tuple(modules)
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                # -P: a user's own tasks.py in the present folder must not be taken for ours.
                [sys.executable, "-P", "-m", "tasks.process", str(theirs.fileno()), str(os.getpid()), *modules],
                pass_fds=[theirs.fileno()],
                env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if quiet else None,
                stderr=subprocess.DEVNULL if quiet else None,
                start_new_session=True,  # Ctrl-C in the terminal is for the flow, which ends its processes itself
            )
        self.connection = Connection(ours.detach())
        self.call: Call | None = None
        self.starting = False

    def set_up(self, setup: Callable[[], None]) -> None:
        self.starting = True
        self.give(Call("setup", setup, ()), ())

    def give(self, call: Call, arguments: tuple[Any, ...]) -> None:
        self.call = call
        with contextlib.suppress(OSError):  # it is gone, and the next look at the connection says so
            self.connection.send((call.function, arguments))

    def memory(self) -> int:
        try:
            return psutil.Process(self._process.pid).memory_info().rss
        except psutil.Error:
            return 0

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> None:
        self.connection.close()
        self._process.wait()


class Ended:
    """Calls as they end, like Dask's `as_completed`: calls may be added meanwhile."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._calls: list[Call] = []
        self.submit = processes.submit

    def cut_off(self, error: Exception) -> bool:
        """Whether a call ended with the connection to a scheduler: never, since there is none.

        Args:
            error: What the call raised.
        """
        return False

    def add(self, call: Call) -> None:
        """Add a call, which iteration returns once it is done.

        Args:
            call: A call of these processes.
        """
        self._calls.append(call)

    def __next__(self) -> Call:
        while True:
            for call in self._calls:
                if call.done():
                    self._calls.remove(call)
                    return call
            self._processes.step(_LOOK_SECONDS)
