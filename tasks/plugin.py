"""How a Dask worker is set up."""

import os

from distributed import WorkerPlugin

from tasks.settings import ModelRequest
from tasks.worker import prepare


class ResidentModel(WorkerPlugin):
    """A Dask worker plugin that loads the separator when the process starts, and again after a restart.

    Args:
        request: The separator to load; None where the work needs none.
        threads: How many threads torch uses in this process.
        quiet: Whether to silence what C libraries print, for worker processes that share the user's screen.
    """

    name = "unbraid-resident-model"

    def __init__(self, request: ModelRequest | None, threads: int, *, quiet: bool = False) -> None:
        self._request = request
        self._threads = threads
        self._quiet = quiet

    def setup(self, worker) -> None:
        """Set the process up; Dask calls this before the worker takes any work.

        Args:
            worker: Dask's worker, which is not used: the set-up is that of the process.

        Raises:
            RegistryError: The model is unknown or damaged.
            ModelError: The model cannot be loaded, or its device or precision is not available here.
        """
        if self._quiet and not os.environ.get("UNBRAID_LOG"):
            # Decoders write their notes on bad files straight to the screen; the rows say what matters.
            with open(os.devnull, "w") as sink:
                os.dup2(sink.fileno(), 2)
        prepare(self._request, self._threads)
