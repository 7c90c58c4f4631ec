"""A challenger is trained on what is new, and takes the champion's place if it is better on the test split."""

import hashlib
import json

from flows.evaluate import evaluate
from flows.ingest import ingest
from flows.running.environment import with_prefect
from flows.running.parameters import settings_flow
from flows.running.phases import phase
from flows.settings import EvaluateOptions, IngestOptions, RetrainOptions, TrainOptions
from flows.train import train
from storage import runs
from storage.files.layout import OutputLayout, trainings
from storage.files.location import location
from storage.results.metrics import read_all
from storage.results.rows import read_rows, write_rows
from storage.results.training_rows import DecisionRow
from storage.store import Store
from tasks.loading import registry
from tasks.training.gate import contest, decide
from tasks.training.ready import check_store, trainable


def ready(options: RetrainOptions) -> None:
    """Raise PresetError, DatasetError, StoreError or RegistryError for what one of the parts would be refused for."""
    trainable(options.preset, options.settings)
    champion = registry().champions().get(options.preset, "stereo")
    evaluate.check(options.part(EvaluateOptions, dataset=options.test, model=champion))
    for dataset in options.new:
        ingest.check(options.part(IngestOptions, dataset=dataset, split="train"))
    if not options.new:
        check_store(options.store, trainable(options.preset, options.settings))


@settings_flow(RetrainOptions, name="retrain", check=ready)
def retrain(options: RetrainOptions, _: None) -> DecisionRow:
    """Ingest what is new, train from the champion (or from scratch), let the gate decide.

    Killed and started again with the same store and champion, the training goes on. Raises what its parts raise.
    """
    for dataset in options.new:
        ingest(**options.part(IngestOptions, dataset=dataset, split="train").values())
    champion = registry().champions().get(options.preset)
    start = None if options.scratch else champion
    training = options.part(TrainOptions, run=_folder(options, start), resume=True, start=start)
    report = train(**training.values())
    evaluated = []
    if champion is not None and champion != report.model_id:
        judged = options.part(EvaluateOptions, dataset=options.test)
        for model in (report.model_id, champion):
            evaluated.append(evaluate(**judged.replaced(model=model).values()))
            judged = judged.replaced(device=evaluated[-1].device)  # the champion runs where the challenger did
    return decide_phase(options, report.model_id, champion, [summary.run_id for summary in evaluated])


@phase("decide")
def decide_phase(options: RetrainOptions, challenger: str, champion: str | None, evaluated: list[str]) -> DecisionRow:
    """Weigh the two, move the champion's pointer or leave it, and write down why."""
    layout = OutputLayout(location(options.out))
    rows = [row for run_id in evaluated for row in read_all(layout, run_id).to_pylist()]
    scores = contest(rows, challenger, champion) if champion is not None else None
    test_set = f"{options.test} ({options.split})"
    earlier = read_rows(layout, "decisions").to_pylist()
    decision = decide(
        options.preset, challenger, champion, test_set, scores, least_rise=options.least_rise,
        looks=bool(evaluated) + sum(row["dataset"] == test_set for row in earlier if row["tracks"]),
    )  # fmt: skip
    if decision.promoted:
        registry().promote(challenger, instead_of=champion)
    write_rows(layout, runs.new_run_id("retrain"), [decision])
    if with_prefect():
        from prefect.artifacts import create_markdown_artifact

        create_markdown_artifact(_markdown(decision), key="retrain-decision", description=decision.reason)
    return decision


def _folder(options: RetrainOptions, start: str | None) -> str:
    """The training's folder: another one when the store, the champion or a setting is another."""
    tracks = [[track.track_id, track.checksums] for track in Store.open(location(options.store)).tracks("train")]
    settings = {**options.settings, "steps": options.steps}
    deciding = json.dumps(
        [sorted(tracks, key=str), options.preset, start, options.seed, settings], sort_keys=True, default=str
    )
    digest = hashlib.sha256(deciding.encode()).hexdigest()[:10]
    return f"{trainings(options.store)}/retrain-{options.preset}-{digest}"


def _markdown(decision: DecisionRow) -> str:
    ours, theirs = json.loads(decision.challenger_medians), json.loads(decision.champion_medians)
    verdict = "promoted" if decision.promoted else "not promoted"
    lines = [
        f"**{decision.challenger}** is {verdict}: {decision.reason}.",
        "",
        f"{decision.tracks} tracks of {decision.dataset} (decision {decision.looks} by it), median cSDR in dB:",
        "",
        f"| stem | {decision.challenger} | {decision.champion or 'no champion'} |",
        "|---|---|---|",
    ]
    lines += [f"| {stem} | {score:.2f} | {theirs[stem]:.2f} |" for stem, score in ours.items()]
    return "\n".join(lines)
