"""What verbs show of a run when it has ended."""

import click


def show_failures(out: str, run_id: str) -> None:
    from flows.tables import show
    from storage.layout import OutputLayout
    from storage.location import location
    from storage.metrics import FAILED, read_all

    rows = read_all(OutputLayout(location(out)), run_id, ["path", "status", "error"]).to_pylist()
    failed = [row for row in rows if row["status"] == FAILED]
    show(["failed", "why"], [[row["path"], row["error"]] for row in failed[:20]])
    if len(failed) > 20:
        sql = "select path, error from metrics where status = 'failed'"
        click.echo(f'and {len(failed) - 20} more: unbraid query {out} "{sql}"')


def show_scores(out: str, run_id: str) -> None:
    from flows.tables import show
    from storage.layout import OutputLayout
    from storage.location import location
    from storage.metrics import read_all
    from tasks.report import by_model_and_stem

    groups = by_model_and_stem(read_all(OutputLayout(location(out)), run_id).to_pylist())
    groups.sort(key=lambda group: (group["stem"], group["sdr"] if group["sdr"] is not None else -1e9))
    show(
        ["stem", "model", "tracks", "cSDR", "mean of windows", "uSDR", "SI-SDR", "× real time"],
        [[g["stem"], g["model_id"], g["tracks"], g["sdr"], g["sdr_mean"], g["usdr"], g["si_sdr"], g["realtime"]]
         for g in groups],
        title="medians over tracks, dB",
    )  # fmt: skip
