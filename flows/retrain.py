"""A challenger is trained on what is new, and takes the champion's place if it is better on the test split."""

import dataclasses
import hashlib
import json

from flows.evaluate import evaluate
from flows.ingest import ingest
from flows.running.environment import with_prefect
from flows.running.parameters import settings_flow
from flows.running.phases import phase
from flows.separate import separate
from flows.settings import EvaluateOptions, IngestOptions, RetrainOptions, SeparateOptions, TrainOptions
from flows.train import train
from storage import runs
from storage.errors import RegistryError
from storage.files.layout import OutputLayout, trainings
from storage.files.location import absolute, location
from storage.results.metrics import read_all
from storage.results.predictions import predicted_scores
from storage.results.rows import read_rows, write_rows
from storage.results.training_rows import DecisionRow
from storage.store import Store
from tasks.loading import registry
from tasks.training.gate import contest, decide
from tasks.training.ready import check_store, trainable


def ready(options: RetrainOptions) -> str:
    """The preset's name, where none of the parts would be refused.

    Args:
        options: The retraining's options.

    Returns:
        The name under which models are registered; the option may be the path of a TOML file.

    Raises:
        PresetError: There is no such preset or setting.
        DatasetError: A new dataset or the test set cannot be read, or a song would be in both splits.
        StoreError: The store cannot be trained on.
        RegistryError: The registry cannot be read, or the champion's file is damaged.
        CatalogError: With predicted scores, there is nothing to separate in the test set.
    """
    preset = trainable(options.preset, options.settings)
    champion = registry().champions().get(preset.name, "stereo")
    if options.score == "predicted":
        separate.check(_separation(options, champion))
    else:
        evaluate.check(options.part(EvaluateOptions, dataset=options.test, model=champion))
    for dataset in options.new:
        ingest.check(options.part(IngestOptions, dataset=dataset, split="train"))
    if not options.new:
        check_store(options.store, preset)
    return preset.name


@settings_flow(RetrainOptions, name="retrain", check=ready)
def retrain(options: RetrainOptions, preset: str) -> DecisionRow:
    """Ingest what is new, train from the champion (or from scratch), let the gate decide.

    Killed and started again with the same store and champion, the training goes on.

    Returns:
        The decision, as written to the table `decisions`.

    Raises:
        SettingsError: A setting is unknown or has a value that it cannot have.
        Exception: What one of its parts raises; see `ingest`, `train`, `separate` and `evaluate`.
    """
    for dataset in options.new:
        ingest(**options.part(IngestOptions, dataset=dataset, split="train").values())
    champion = registry().champions().get(preset)
    start = None if options.scratch else champion
    training = options.part(TrainOptions, run=_folder(options, preset, start), resume=True, start=start)
    report = train(**training.values())
    contested = champion is not None and champion != report.model_id
    rows = _scores(options, report.model_id, str(champion)) if contested else []
    return decide_phase(options, preset, report.model_id, champion, rows, contested)


def _scores(options: RetrainOptions, challenger: str, champion: str) -> list[dict]:
    """How both models score on the test set: rows with `model_id`, `track_id`, `stem`, `status` and `sdr` in dB."""
    layout = OutputLayout(location(options.out))
    if options.score == "predicted":
        for model in (challenger, champion):
            separate(**_separation(options, model).values())
        return predicted_scores(layout, (challenger, champion))
    rows = []
    judged = options.part(EvaluateOptions, dataset=options.test)
    for model in (challenger, champion):
        summary = evaluate(**judged.replaced(model=model).values())
        rows += read_all(layout, summary.run_id).to_pylist()
        judged = judged.replaced(device=summary.device)  # the champion runs where the challenger did
    return rows


def _separation(options: RetrainOptions, model: str) -> SeparateOptions:
    """The separation that predictions come from; each model's stems lie beside those of others, as small files."""
    return options.part(SeparateOptions, source=options.test, model=model, keep_models=True, format="ogg")


@phase("decide")
def decide_phase(
    options: RetrainOptions, preset: str, challenger: str, champion: str | None, rows: list[dict], contested: bool
) -> DecisionRow:
    """Weigh the two, move the champion's pointer or leave it, and write down why.

    Args:
        options: The retraining's options.
        preset: The name of the preset that is retrained.
        challenger: The challenger's model id.
        champion: The champion's model id, None where the preset has none.
        rows: The scores of both; see `_scores`.
        contested: Whether the two were compared.

    Returns:
        The decision, which has been carried out.

    Raises:
        RegistryError: Another model has become champion since the comparison began.
    """
    layout = OutputLayout(location(options.out))
    predicted = options.score == "predicted"
    scores = contest(rows, challenger, champion) if champion is not None else None
    test_set = f"{absolute(options.test)} ({'predicted' if predicted else options.split})"
    earlier = read_rows(layout, "decisions").to_pylist()
    decision = decide(
        preset, challenger, champion, test_set, scores, least_rise=options.least_rise,
        looks=contested + sum(row["dataset"] == test_set for row in earlier if row["tracks"]), predicted=predicted,
    )  # fmt: skip
    run_id = runs.new_run_id("retrain")
    if decision.promoted:
        try:
            registry().promote(challenger, instead_of=champion)
        except RegistryError as error:  # the test set has been looked at all the same
            write_rows(layout, run_id, [dataclasses.replace(decision, promoted=False, reason=str(error))])
            raise
    write_rows(layout, run_id, [decision])
    if with_prefect():
        from prefect.artifacts import create_markdown_artifact

        create_markdown_artifact(_markdown(decision), key="retrain-decision", description=decision.reason)
    return decision


def _folder(options: RetrainOptions, preset: str, start: str | None) -> str:
    """The training's folder, a different one for a different store, champion or setting."""
    tracks = [[track.track_id, track.checksums] for track in Store.open(location(options.store)).tracks("train")]
    settings = {**options.settings, "steps": options.steps}
    deciding = json.dumps(
        [sorted(tracks, key=str), options.preset, start, options.seed, settings], sort_keys=True, default=str
    )
    digest = hashlib.sha256(deciding.encode()).hexdigest()[:10]
    return f"{trainings(options.store)}/retrain-{preset}-{digest}"


def _markdown(decision: DecisionRow) -> str:
    ours, theirs = json.loads(decision.challenger_medians), json.loads(decision.champion_medians)
    verdict = "promoted" if decision.promoted else "not promoted"
    what = "predicted SDR" if decision.score == "predicted" else "cSDR"
    lines = [
        f"**{decision.challenger}** is {verdict}: {decision.reason}.",
        "",
        f"{decision.tracks} tracks of {decision.dataset} (decision {decision.looks} by it), median {what} in dB:",
        "",
        f"| stem | {decision.challenger} | {decision.champion or 'no champion'} |",
        "|---|---|---|",
    ]
    lines += [f"| {stem} | {score:.2f} | {theirs[stem]:.2f} |" for stem, score in ours.items()]
    return "\n".join(lines)
