"""A preset's settings are searched: every trial is a training, and a row."""

from functools import partial

from flows.running.cluster import GPU_TO_TRAIN, Cluster, cluster
from flows.running.commit import commit_rows
from flows.running.fanout import fan_out
from flows.running.parameters import settings_flow
from flows.running.phases import phase
from flows.running.progress import progress
from flows.running.record import swept
from flows.settings import TuneOptions
from storage import runs
from storage.files.layout import OutputLayout
from storage.files.location import absolute, location
from storage.results.training_rows import TrialRow
from tasks.training.ready import check_space, check_store, trainable
from tasks.training.tune import Dimension, TuneSettings, lost_trial, run_trials, trials


def ready(options: TuneOptions) -> list[dict]:
    """The settings of each trial.

    Args:
        options: The search's options.

    Returns:
        One dict per trial, from the name of a setting to its value.

    Raises:
        PresetError: The space names something that is not a setting, or cannot be searched in this way.
        StoreError: The store cannot be trained on.
    """
    space = [Dimension.parse(text) for text in options.space]
    check_space(options.preset, space)
    check_store(options.store, trainable(options.preset, {}))
    return trials(space, options.search, options.trials, options.seed)


@settings_flow(TuneOptions, name="tune", check=ready)
def tune(options: TuneOptions, planned: list[dict]) -> list[TrialRow]:
    """Search a preset's settings. A trial that does not work is a row, not an error.

    Returns:
        The trials' rows, the highest cSDR first.

    Raises:
        SettingsError: A setting is unknown or has a value that it cannot have.
        PresetError: The space names something that is not a setting, or cannot be searched in this way.
        StoreError: The store cannot be trained on.
    """
    chosen = list(enumerate(planned))
    run_id = runs.new_run_id("tune")
    layout = OutputLayout(location(options.out))
    folder = layout.root / "trainings" / run_id
    settings = options.part(TuneSettings, store=absolute(options.store), folder=str(folder.resolve()))
    with swept(folder), cluster(tracks=len(chosen), **options.cluster) as where:
        where.must_see(settings.store)
        rows = trials_phase(settings, chosen, layout, run_id, where)
    return sorted(rows, key=lambda row: -1e9 if row.csdr is None else row.csdr, reverse=True)


@phase("trials")
def trials_phase(
    settings: TuneSettings, chosen: list[tuple[int, dict]], out: OutputLayout, run_id: str, where: Cluster
) -> list[TrialRow]:
    """Run each trial as a separate future, and write its row as it ends.

    Args:
        settings: What all trials share.
        chosen: (number, settings) pairs, one per trial.
        out: The output that the rows go to.
        run_id: The run.
        where: The connected cluster; GPU workers take the trials where there are any.

    Returns:
        One row per trial, in the order in which they ended.
    """
    resources = GPU_TO_TRAIN if where.offering("GPU").slots and settings.device != "cpu" else None
    batches = ([trial] for trial in chosen)
    with progress("trials", len(chosen), "trial") as line:
        outcomes = fan_out(
            where.client, partial(run_trials, settings), batches, window=where.window, resources=resources
        )
        return commit_rows(outcomes, partial(lost_trial, settings), out, run_id, line)
