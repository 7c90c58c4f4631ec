"""Which page a folder gets: a run folder's report."""

from pathlib import Path

from storage.errors import MetricsError
from storage.files.layout import OutputLayout
from storage.results.summary import finished_runs
from tasks.pages.report import latest_run, write_report


def write_page(folder: Path, run_id: str | None = None, compare: tuple[str, ...] | None = None) -> Path:
    """Write the page that fits what is in a folder.

    Args:
        folder: A run folder (OUT).
        run_id: For a run folder: which run; the last one where None.
        compare: For a run folder: the runs beside it; the one before where None.

    Returns:
        Where the page is.

    Raises:
        MetricsError: There is nothing in the folder that has a page.
    """
    out = OutputLayout(folder)
    if finished_runs(out):
        return write_report(out, run_id or latest_run(out), compare)
    raise MetricsError(f"{folder} holds no finished run; give the folder of one")
