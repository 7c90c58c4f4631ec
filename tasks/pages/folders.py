"""Which page a folder gets: the report of a run folder, of a training or of a search."""

from pathlib import Path

from storage.errors import MetricsError
from storage.files.layout import OutputLayout, TrainingLayout
from storage.results.summary import finished_runs
from tasks.pages.report import latest_run, write_report
from tasks.pages.training import write_search_page, write_training_page


def write_page(folder: Path, run_id: str | None = None, compare: tuple[str, ...] | None = None) -> Path:
    """Write the page that fits what is in a folder.

    Args:
        folder: A run folder (OUT), the folder of a training run, or OUT of a search.
        run_id: For a run folder: which run; the last one where None.
        compare: For a run folder: the runs to compare with; the previous one where None.

    Returns:
        The page's path.

    Raises:
        MetricsError: There is nothing in the folder that has a page.
    """
    training = TrainingLayout(folder)
    if training.log.exists():
        return write_training_page(training)
    out = OutputLayout(folder)
    if finished_runs(out):
        return write_report(out, run_id or latest_run(out), compare)
    if (folder / "trials").is_dir():
        return write_search_page(out)
    raise MetricsError(f"{folder} holds no finished run, no training and no search; give the folder of one")
