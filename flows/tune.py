"""A preset's settings are searched: every trial is a training, and a row."""

from functools import partial

from flows import environment

environment.prepare()

from prefect import flow, task  # noqa: E402
from prefect.cache_policies import NO_CACHE  # noqa: E402

from flows.cluster import Cluster, cluster  # noqa: E402
from flows.commit import commit_rows  # noqa: E402
from flows.progress import progress  # noqa: E402
from model.preset import load_preset  # noqa: E402
from storage import runs  # noqa: E402
from storage.layout import OutputLayout  # noqa: E402
from storage.location import absolute, location  # noqa: E402
from storage.tables import TrialRow  # noqa: E402
from tasks.fanout import fan_out  # noqa: E402
from tasks.tune import Dimension, TuneSettings, lost_trial, run_trials, trials  # noqa: E402


@flow(name="tune")
def tune(
    store: str,
    out: str,
    space: list[str],
    preset: str = "stereo",
    search: str = "random",
    number: int = 8,
    steps: int = 200,
    seed: int = 0,
    device: str = "auto",
    dask: str | None = None,
    workers: int | None = None,
) -> list[TrialRow]:
    """Search `space` for a preset; see `unbraid tune --help`. Returns the trials, the best first.

    Raises PresetError or StoreError when it cannot start; a trial that does not work is a row.
    """
    load_preset(preset)
    chosen = list(enumerate(trials([Dimension.parse(text) for text in space], search, number, seed)))
    run_id = runs.new_run_id("tune")
    layout = OutputLayout(location(out))
    folder = layout.root / "trainings" / run_id
    settings = TuneSettings(absolute(store), str(folder.resolve()), preset, steps, seed, device)
    with cluster(dask, workers=workers, tracks=len(chosen)) as where:
        rows = trials_phase(settings, chosen, layout, run_id, where)
    return sorted(rows, key=lambda row: -1e9 if row.csdr is None else row.csdr, reverse=True)


@task(name="trials", cache_policy=NO_CACHE)
def trials_phase(
    settings: TuneSettings, chosen: list[tuple[int, dict]], out: OutputLayout, run_id: str, where: Cluster
) -> list[TrialRow]:
    """A trial a future; each one's row is written as it ends."""
    resources = {"GPU": 1} if where.offering("GPU").slots and settings.device != "cpu" else None
    batches = ([trial] for trial in chosen)
    with progress("trials", len(chosen)) as line:
        outcomes = fan_out(
            where.client, partial(run_trials, settings), batches, window=where.window, resources=resources
        )
        return commit_rows(outcomes, partial(lost_trial, settings), out, run_id, line)
