"""What becomes of a run whose Prefect server goes away: its work is on the disk all the same."""

import logging
import os
from collections.abc import Callable
from typing import Any

import click


def outliving_the_server(flow: Callable[..., Any], folder: str, summary: type, **parameters: Any) -> Any:
    """`flow(**parameters)`; where the server was lost, what the run's own record under `folder` says of its end.

    Raises StorageError where the run did not come to its end.
    """
    import httpx

    from storage.errors import StorageError
    from storage.files.layout import OutputLayout
    from storage.files.location import location
    from storage.runs import completed_here

    if not os.environ.get("UNBRAID_DEBUG"):
        for name in ("prefect.flow_runs", "prefect.task_runs", "prefect._internal.concurrency"):
            logging.getLogger(name).addFilter(_without_traceback)
    try:
        return flow(**parameters)
    except httpx.TransportError as error:
        server = os.environ.get("PREFECT_API_URL", "of this run")
        record = completed_here(OutputLayout(location(folder)))
        if record is None:
            raise StorageError(
                f"the Prefect server {server} does not answer ({error}); what is finished is kept, and the same "
                "command goes on from there"
            ) from error
        click.echo(f"unbraid: the Prefect server {server} was lost and does not know that this run ended", err=True)
        return summary(**record["summary"])


def _without_traceback(record: logging.LogRecord) -> bool:
    record.exc_info = record.exc_text = record.stack_info = None
    return True
