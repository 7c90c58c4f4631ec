"""Summaries of predicted scores: over all that a catalog's output holds, by folder and genre, and from run to run."""

from dataclasses import dataclass

from storage.files.layout import OutputLayout
from storage.results import metrics
from storage.results.query import opened
from storage.results.summary import MEASURES, earlier_runs, opened_run

_RUNS = 5  # earlier ones that a run is compared with
_GROUPS = 12
_WORST = 10
_LEAST = 2  # tracks of a folder or genre, since a median of one says nothing
_MEASURE = next(measure for measure in MEASURES if measure.column == "predicted_sdr")

# One row per track whose stem is on the disk; of models side by side, one per model.
_PREDICTED = """
create temp table predicted as
select path, model_id, predicted_sdr as sdr, predicted_low as low, predicted_high as high,
    coalesce(nullif(regexp_replace(path, '/?[^/]*$', ''), ''), '.') as folder, genre
from metrics where on_disk and stem = $stem and predicted_sdr is not null
"""
_LEAD = """
select stem from metrics where on_disk and predicted_sdr is not null
group by stem order by stem <> 'vocals', stem limit 1
"""


@dataclass(frozen=True)
class RunMedian:
    """The median predicted SDR, in dB, that a run's model reached on its leading stem."""

    run_id: str
    model_id: str
    stem: str
    tracks: int
    median: float


@dataclass(frozen=True)
class Group:
    """The tracks of a folder or a genre, and the median of their predicted SDR in dB."""

    name: str
    tracks: int
    median: float


@dataclass(frozen=True)
class CatalogPredictions:
    """The predicted SDR of one stem over all tracks whose stems are in an output.

    Attributes:
        stem: The stem, vocals where there are any.
        tracks: How many tracks.
        quantiles: First decile, median and last decile, in dB.
        counts: Tracks per bin of `storage.results.summary.MEASURES`.
        folders: Those with the lowest medians, the lowest first, of those with at least `_LEAST` tracks.
        genres: The same by the sources' genre tag.
        worst: `path`, `model_id`, `sdr`, `low` and `high` of the tracks with the lowest predictions.
    """

    stem: str
    tracks: int
    quantiles: tuple[float, float, float]
    counts: list[int]
    folders: list[Group]
    genres: list[Group]
    worst: list[dict]


def run_medians(out: OutputLayout, run_id: str) -> list[RunMedian]:
    """The medians of a run and of the five runs of its kind before it, of those that predicted the same stem.

    Args:
        out: The output's layout.
        run_id: The run, whose rows are compacted.

    Returns:
        The run's own median, then the others, the latest first; empty where the run predicted nothing.
    """
    this = _run_median(out, run_id)
    if this is None:
        return []
    medians = [this]
    for name in earlier_runs(out, run_id)[:_RUNS]:
        earlier = _run_median(out, name)
        if earlier is not None and earlier.stem == this.stem:
            medians.append(earlier)
    return medians


def run_drift(out: OutputLayout, run_id: str) -> str | None:
    """How the median predicted SDR of a run compares with those of earlier runs, as a sentence.

    Up to six runs' rows are read for it.

    Args:
        out: The output's layout.
        run_id: The run, whose rows are compacted.

    Returns:
        See `drift_sentence`.
    """
    return drift_sentence(run_medians(out, run_id)) if earlier_runs(out, run_id) else None


def _run_median(out: OutputLayout, run_id: str) -> RunMedian | None:
    with opened_run(out, run_id) as rows:
        groups = [group for group in rows.by_model_and_stem() if group["predicted_sdr"] is not None]
        if not groups:
            return None
        group = min(groups, key=lambda group: (group["stem"] != "vocals", -group["tracks"]))
        return RunMedian(run_id, group["model_id"], group["stem"], group["tracks"], group["predicted_sdr"])


def drift_sentence(medians: list[RunMedian]) -> str | None:
    """A sentence that compares a run's median with those of earlier runs.

    Medians of other models are marked as such: each model's predictions are calibrated separately.

    Args:
        medians: The run's own first, then the earlier ones, the latest first, as `run_medians` gives them.

    Returns:
        The sentence, with medians in dB; None where there is no earlier run.
    """
    if len(medians) < 2:
        return None
    this, *before = medians
    difference = round(this.median - before[0].median, 1)
    than = f"{abs(difference):.1f} dB {'above' if difference > 0 else 'below'}" if difference else "as"
    runs = ", ".join(
        f"{run.median:.1f}" + (f" ({run.model_id})" if run.model_id != this.model_id else "") for run in before
    )
    return (
        f"predicted SDR of {this.stem} {this.median:.1f} dB in the median, {than} the run before; "
        f"the latest before: {runs} dB"
    )


def predicted_scores(out: OutputLayout, models: tuple[str, ...]) -> list[dict]:
    """What models predicted of those of their stems that are in an output.

    Args:
        out: The output's layout.
        models: The ids of the models.

    Returns:
        One dict per track, model and stem: `track_id`, `model_id`, `stem`, `status` and the prediction as `sdr`, in dB,
        None where there is none.

    Raises:
        MetricsError: The output has no rows.
    """
    with opened(out.root) as connection:
        sql = """
            select track_id, model_id, stem, status, predicted_sdr as sdr
            from metrics where on_disk and list_contains($models, model_id)
        """
        return connection.sql(sql, params={"models": list(models)}).to_arrow_table().to_pylist()


def catalog_predictions(out: OutputLayout) -> CatalogPredictions | None:
    """The predictions of the leading stem over all tracks in an output.

    Args:
        out: The output's layout.

    Returns:
        The summary, None where nothing was predicted.

    Raises:
        MetricsError: The rows cannot be read.
    """
    if not metrics.row_files(out):
        return None
    with opened(out.root) as connection:
        lead = connection.sql(_LEAD).fetchall()
        if not lead:
            return None
        ((stem,),) = lead
        connection.execute(_PREDICTED, {"stem": stem})

        def ask(sql: str) -> list[dict]:
            return connection.sql(sql).to_arrow_table().to_pylist()

        (totals,) = ask("select count(*) as n, quantile_cont(sdr, [0.1, 0.5, 0.9]) as quantiles from predicted")
        step, last = (_MEASURE.high - _MEASURE.low) / _MEASURE.bins, _MEASURE.bins - 1
        counts = [0] * _MEASURE.bins
        bins = f"cast(least(greatest(floor((sdr - {_MEASURE.low}) / {step}), 0), {last}) as integer)"
        for row in ask(f"select {bins} as bin, count(*) as n from predicted group by all"):
            counts[row["bin"]] = row["n"]
        groups = {
            column: [
                Group(row["name"], row["tracks"], row["median"])
                for row in ask(
                    f"select {column} as name, count(*) as tracks, median(sdr) as median from predicted "
                    f"where {column} is not null group by all having count(*) >= {_LEAST} "
                    f"order by median, name limit {_GROUPS}"
                )
            ]
            for column in ("folder", "genre")
        }
        worst = ask(f"select path, model_id, sdr, low, high from predicted order by sdr, path limit {_WORST}")
    quantiles = tuple(totals["quantiles"])
    return CatalogPredictions(stem, totals["n"], quantiles, counts, groups["folder"], groups["genre"], worst)
