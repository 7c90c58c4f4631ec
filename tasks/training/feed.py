"""Examples made ahead of the network: worker processes over the map (seed, number) → ingredients, mixed in batches.

torch's DataLoader gives example n to worker n modulo their number. `tasks.training.examples` keeps a pool of spans per
lane, n modulo `LANES`, so a worker reads the spans of its lanes alone, and what an example is does not depend on
how many workers there are.
"""

import contextlib
import itertools
import multiprocessing
import queue
import threading
import time
from collections.abc import Generator, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from model.learning.trainer import Batch
from model.preset import Preset
from storage.store import StoredTrack
from tasks.cores import available_cores
from tasks.training.examples import LANES, ExampleSource, example_source

_AHEAD = 3  # batches that wait for the network
_MANY_STEPS = 100  # are worth the seconds that a process takes to start
_MOST_WORKERS = 2 * LANES  # more would read every span three times


class Examples(Dataset):
    """The map from an example's number to what it is made of.

    The store is opened in the process that reads it: zarr's handles do not survive a fork.

    Args:
        store: The store's path.
        tracks: The tracks to learn from.
        preset: The preset whose examples they are.
        seed: The run's seed.
    """

    def __init__(self, store: str, tracks: list[StoredTrack], preset: Preset, seed: int) -> None:
        self._arguments = (store, tracks, preset, seed)
        self._source: ExampleSource | None = None

    @property
    def source(self) -> ExampleSource:
        """The examples' source in this process."""
        if self._source is None:
            torch.set_num_threads(1)
            self._source = example_source(*self._arguments)
        return self._source

    def __getitem__(self, number: int) -> Any:
        return self.source.ingredients(number)


class Feed:
    """Batches of training steps, made ahead of them. `waited` is how many seconds the network had none.

    Args:
        store: The store's path.
        tracks: The tracks to learn from.
        preset: The preset whose examples they are.
        seed: The run's seed.
        workers: Processes that make examples; 0 makes them in a thread of this process. None chooses by cores, steps.
        device: Where batches are mixed: a GPU does it itself, while workers read what comes next.

    Raises:
        StoreError: The store lacks a stem, or spectra of the preset's front end where examples are made from them.
    """

    def __init__(
        self, store: str, tracks: list[StoredTrack], preset: Preset, seed: int, *, workers: int | None = None,
        device: str = "cpu",
    ) -> None:  # fmt: skip
        self._examples = Examples(store, tracks, preset, seed)
        self._local = example_source(store, tracks, preset, seed)  # says at once what is wrong with the store
        self._size = preset.training.batch_size
        self._workers = workers
        self._device = device
        self.waited = 0.0

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of some training steps, in order; closing the iterator ends what makes them.

        Args:
            start: The first step.
            stop: The step after the last.
        """
        workers = self._workers
        if workers is None:
            workers = chosen_workers(self._device.startswith("cuda"), stop - start)
        if workers:
            made = self._by_workers(start, stop, workers)
        else:
            made = _in_a_thread(self._local, start, stop, self._device)
        with contextlib.closing(made):
            while True:
                began = time.monotonic()
                batch = next(made, None)
                self.waited += time.monotonic() - began
                if batch is None:
                    return
                yield batch

    def _by_workers(self, start: int, stop: int, workers: int) -> Generator[Batch, None, None]:
        loader = DataLoader(
            self._examples,
            batch_size=None,  # example by example, so that no two workers share a lane
            sampler=range(start * self._size, stop * self._size),
            num_workers=workers,
            prefetch_factor=-(-_AHEAD * self._size // workers),
            multiprocessing_context="spawn",
        )
        with _may_have_children():
            examples = iter(loader)
        for _ in range(start, stop):
            yield self._local.mixed(list(itertools.islice(examples, self._size)), self._device)


def chosen_workers(gpu: bool, steps: int) -> int:
    """How many processes make examples: a power of two, so that a worker keeps its lanes.

    A network on a GPU leaves the cores to them. One on the CPU shares the cores with one process. With a thread it
    would share the interpreter too, which costs a quarter of the speed but no start.

    Args:
        gpu: Whether the network runs on a GPU.
        steps: How many steps of training are ahead.

    Returns:
        A power of two, at most 16; 0 for a thread of this process.
    """
    if gpu:
        return min(_MOST_WORKERS, 1 << (available_cores().bit_length() - 1))
    return 1 if steps >= _MANY_STEPS else 0


@contextlib.contextmanager
def _may_have_children() -> Iterator[None]:
    """A Dask worker is a daemonic process, which multiprocessing allows no children.

    The loader's workers end with it all the same: they watch for their parent.
    """
    configuration = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    before = configuration.get("daemon")
    configuration["daemon"] = False
    try:
        yield
    finally:
        configuration["daemon"] = before


def _in_a_thread(source: ExampleSource, start: int, stop: int, device: str) -> Generator[Batch, None, None]:
    """Batches made one thread ahead, so that reading and mixing hide behind the network."""
    waiting: queue.Queue = queue.Queue(maxsize=_AHEAD)
    abandoned = threading.Event()

    def produce() -> None:
        try:
            for step in range(start, stop):
                item = source.batch(step, device)
                while not abandoned.is_set():
                    try:
                        waiting.put(item, timeout=1)
                        break
                    except queue.Full:
                        continue
                if abandoned.is_set():
                    return
            waiting.put(None)
        except BaseException as error:  # handed to the trainer, which raises it
            waiting.put(error)

    threading.Thread(target=produce, daemon=True).start()
    try:
        while (item := waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        abandoned.set()
