"""What verbs show of a run when it has ended."""

from flows.cli.console import echo

_SHOWN = 20


def show_failures(out: str, run_id: str) -> None:
    """Print the first failed tracks of a run with their errors, and how to list the others.

    Args:
        out: The run folder.
        run_id: The run; its rows are compacted.
    """
    from flows.cli.console import show
    from storage.files.layout import OutputLayout
    from storage.files.location import location
    from storage.results.summary import failures, totals

    layout = OutputLayout(location(out))
    show(["failed", "why"], [[row["path"], row["error"]] for row in failures(layout, run_id, _SHOWN)])
    left = totals(layout, run_id)["failed"] - _SHOWN
    if left > 0:
        sql = "select path, error from metrics where status = 'failed'"
        echo(f'and {left} more: unbraid query {out} "{sql}"')


def medians(out: str, run_id: str) -> list[dict]:
    """The medians over a run's tracks of every model and stem.

    Args:
        out: The run folder.
        run_id: The run; its rows are compacted.

    Returns:
        One dict per model and stem, sorted by stem and then by cSDR in dB, the lowest first and those without
        one before it; see `RunRows.by_model_and_stem`.
    """
    from storage.files.layout import OutputLayout
    from storage.files.location import location
    from storage.results.summary import by_model_and_stem

    groups = by_model_and_stem(OutputLayout(location(out)), run_id)
    return sorted(groups, key=lambda group: (group["stem"], group["sdr"] if group["sdr"] is not None else -1e9))


def show_scores(out: str, run_id: str) -> None:
    """Print the medians of every model and stem of a run.

    Args:
        out: The run folder.
        run_id: The run; its rows are compacted.
    """
    from flows.cli.console import show

    groups = medians(out, run_id)
    show(
        ["stem", "model", "tracks", "cSDR", "mean of windows", "uSDR", "SI-SDR", "× real time"],
        [[g["stem"], g["model_id"], g["tracks"], g["sdr"], g["sdr_mean"], g["usdr"], g["si_sdr"], g["realtime"]]
         for g in groups],
        title="medians over tracks, dB",
    )  # fmt: skip
