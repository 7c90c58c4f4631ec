"""What Prefect's page shows of a run while it goes on and when it ends; nothing without a server, nothing per track."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from storage.files.layout import OutputLayout
from storage.files.location import is_url

if TYPE_CHECKING:
    from flows.running.progress import Progress

_EVERY = 5.0  # seconds between updates of a progress artifact
_FAILURES = 100
_CAUSES = 10


def has_server() -> bool:
    """Is this a run of a Prefect server that was configured, not of the one that a run starts for itself?"""
    if "prefect.context" not in sys.modules:  # nobody has started a run, and importing Prefect takes a second
        return False
    from prefect.context import FlowRunContext, TaskRunContext
    from prefect.settings import PREFECT_API_URL

    running = TaskRunContext.get() or FlowRunContext.get()
    return bool(running) and bool(PREFECT_API_URL.value())


class ProgressArtifact:
    """A bar on Prefect's page: one artifact per phase, updated every few seconds."""

    def __init__(self, state: "Progress") -> None:
        self._state = state
        self._id: UUID | None = None
        self._last = time.monotonic()

    def begin(self) -> None:
        """Make the artifact at nothing done."""
        from prefect.artifacts import create_progress_artifact

        with contextlib.suppress(Exception):  # a server that is lost must not end a run whose rows are on the disk
            key = f"{self._state.phase}-progress".lower().replace("_", "-")
            made: Any = create_progress_artifact(progress=0.0, key=key, description=self._state.text())
            self._id = made

    def show(self, *, now: bool = False) -> None:
        """Update the artifact, at most every `_EVERY` seconds.

        Args:
            now: Whether to update it however recent the last update is.
        """
        if self._id is None or (not now and time.monotonic() - self._last < _EVERY):
            return
        from prefect.artifacts import update_progress_artifact

        self._last = time.monotonic()
        try:
            update_progress_artifact(
                artifact_id=self._id,
                progress=min(100.0, 100.0 * self._state.ended / max(1, self._state.total)),
                description=self._state.text(),
            )
        except Exception:  # as above; and it is not tried again
            self._id = None


@contextlib.contextmanager
def shown_to_prefect(state: "Progress") -> Iterator[None]:
    """Keep a phase's progress artifact on Prefect's page up to date while the body advances it.

    Args:
        state: The phase's progress; its `advance` is replaced by one that updates the artifact too.
    """
    if not has_server():
        yield
        return
    artifact, advance = ProgressArtifact(state), state.advance
    artifact.begin()

    def advancing(**counts: Any) -> None:
        advance(**counts)
        artifact.show()

    state.advance = advancing  # type: ignore[method-assign]
    try:
        yield
    finally:
        artifact.show(now=True)


def publish(out: OutputLayout, run_id: str, report: Path | str | None, drift: str | None = None) -> None:
    """Publish a run on Prefect's page: a summary with the scores, a table of the first failures, a link to the report.

    The run's log there gets the totals and a line per cause of failure. Nothing happens without a server, and an
    error on the way to it is ignored.

    Args:
        out: The output the run wrote to.
        run_id: The run; its rows are compacted.
        report: The report's path or URL; None or "" where there is none.
        drift: How its predictions moved, as `summary_text` takes it.
    """
    if not has_server():
        return
    from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
    from prefect.logging import get_run_logger

    from storage.results.summary import opened_run  # imports Arrow, and the command line imports this module

    with contextlib.suppress(Exception):  # as above
        with opened_run(out, run_id) as rows:
            totals, groups, failures = rows.totals(), rows.by_model_and_stem(), rows.failures(_FAILURES)
            causes = rows.failure_causes(_CAUSES, 1) if failures else []
        log = get_run_logger()
        for line in log_lines(totals, causes):
            log.info(line)
        create_markdown_artifact(summary_text(run_id, totals, groups, drift), key="run-summary", description=run_id)
        if failures:
            create_table_artifact(failures, key="run-failures", description=f"{totals['failed']} failed tracks")
        if report:
            link = str(report) if is_url(report) else Path(report).resolve().as_uri()
            create_link_artifact(link, link_text=f"report of {run_id}", key="run-report", description=run_id)


def log_lines(totals: dict, causes: list[dict]) -> list[str]:
    """A run in a few log lines: totals, then the causes of failures, each with one track that met it.

    Args:
        totals: `done` and `failed` tracks and `seconds` of audio; see `RunRows.totals`.
        causes: Causes with the number of `tracks` and at least one of `examples`; see `RunRows.failure_causes`.
    """
    lines = [f"{totals['done']} ok, {totals['failed']} failed, {totals['seconds'] / 3600:.2f} hours of audio"]
    for cause in causes:
        example = cause["examples"][0]
        number = f"{cause['tracks']} tracks" if cause["tracks"] != 1 else "1 track"
        lines.append(f"{number} failed as {example['path']}: {example['error']}")
    return lines


def summary_text(run_id: str, totals: dict, groups: list[dict], drift: str | None = None) -> str:
    """A run in Markdown: totals, how predictions moved from run to run, then medians per model and stem.

    Args:
        run_id: The run, as the heading.
        totals: `done` and `failed` tracks and `seconds` of audio; see `RunRows.totals`.
        groups: One dict of medians per model and stem; see `RunRows.by_model_and_stem`.
        drift: A sentence on how predicted SDR moved, without its full stop; None where there is no earlier run.
    """

    def text(value: float | None) -> str:
        return "–" if value is None else f"{value:.2f}"

    lines = [
        f"## {run_id}", "",
        f"{totals['done']} ok, {totals['failed']} failed, {totals['seconds'] / 3600:.2f} hours of audio", "",
        *([f"Drift: {drift}.", ""] if drift else []),
        "| model | stem | tracks | cSDR dB | predicted SDR dB | LUFS | × real time |", "|---|---|--:|--:|--:|--:|--:|",
    ]  # fmt: skip
    for group in groups:
        scores = (group["sdr"], group["predicted_sdr"], group["loudness_lufs"], group["realtime"])
        cells = [group["model_id"], group["stem"], str(group["tracks"]), *map(text, scores)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def run_name(flow: str, parameters: dict[str, Any]) -> str:
    """A flow run's name: its flow, its subject and the day (UTC), e.g. separate-music-2026-11-21.

    Args:
        flow: The flow's name.
        parameters: The run's parameters; the last part of the first path among them is the subject.
    """
    import datetime

    subject = next(
        (parameters[name] for name in ("source", "dataset", "store", "vocals_of", "out") if parameters.get(name)), ""
    )
    about = str(subject).rstrip("/").rsplit("/", 1)[-1]
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    return "-".join(part for part in (flow, about, day) if part)
