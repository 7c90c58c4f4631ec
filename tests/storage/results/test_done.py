"""What an output holds, whichever files its rows lie in."""

import datetime
import random

import pytest

from storage.files.layout import OutputLayout
from storage.results import metrics
from storage.results.done import Target, done_tracks
from storage.results.metrics import StemRow

STEMS = ("accompaniment", "vocals")
TARGET = Target("m-1", ("now", "before"), STEMS)


def history(generator) -> list[StemRow]:
    """Separations of five tracks at different times: by two models, complete, in part, failed and interrupted."""
    rows = []
    for number in range(60):
        track, when = f"a/{generator.randrange(5)}", datetime.datetime(2026, 1, 1, 0, number, tzinfo=datetime.UTC)
        made = {
            "model_id": generator.choice(["m-1", "m-1", "m-2"]), "track_id": track, "path": track,
            "settings_hash": generator.choice(["now", "before", "other"]), "source_fingerprint": "f",
            "source": f"/music/{generator.randrange(2)}/{track}", "finished_at": when,
        }  # fmt: skip
        status = generator.choice(["ok", "ok", "ok", "failed", "interrupted"])
        if status == "ok":
            stems = generator.sample(STEMS, generator.randrange(1, 3))
            rows += [StemRow(stem=s, status="ok", stem_path=f"stems/{track}/{s}.flac", **made) for s in stems]
        else:
            place = f"stems/{track}/" if status == "interrupted" else None
            rows.append(StemRow(stem=None, status=status, stem_path=place, **made))
    return rows


def answers(out: OutputLayout) -> list:
    done = done_tracks(out, TARGET)
    tracks = [f"a/{number}" for number in range(6)]
    return [len(done), done.stems, done.lacking] + [
        (
            done.ended(track, "f"), done.missing(track, "f", "now"), done.missing(track, "f", "before"),
            done.holds(track), done.place(track, (track,)), done.taken(track), done.anothers(track, "/elsewhere"),
        )
        for track in tracks
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_the_order_and_the_files_of_rows_do_not_matter(tmp_path, seed):
    generator = random.Random(seed)
    rows = history(generator)
    together, apart = OutputLayout(tmp_path / "together"), OutputLayout(tmp_path / "apart")
    metrics.write_part(together, "r", rows)
    shuffled = generator.sample(rows, len(rows))
    for start in range(0, len(rows), 9):
        metrics.write_part(apart, f"r{start}", shuffled[start : start + 9])
    for out in (together, apart):
        for row in rows[::3]:
            if row.stem is not None:
                (out.root / row.stem_path).parent.mkdir(parents=True, exist_ok=True)
                (out.root / row.stem_path).touch()
    assert answers(together) == answers(apart)
    assert len({str(answer) for answer in answers(together)}) > 3  # the tracks are in different states


def test_stems_of_an_earlier_separation_are_not_those_of_the_latest(tmp_path):
    out = OutputLayout(tmp_path)
    for minute, (settings, stems) in enumerate([("before", STEMS), ("now", ["vocals"])]):
        when = datetime.datetime(2026, 1, 1, 0, minute, tzinfo=datetime.UTC)
        metrics.write_part(out, f"r{minute}", [
            StemRow("m-1", "a", "a", stem, "ok", settings_hash=settings, source_fingerprint="f", finished_at=when,
                    stem_path=f"stems/a/{stem}.flac") for stem in stems
        ])  # fmt: skip
    (out.stems / "a").mkdir(parents=True)
    for stem in STEMS:
        (out.stems / "a" / f"{stem}.flac").touch()
    done = done_tracks(out, TARGET)
    assert done.ended("a", "f") is None
    assert done.missing("a", "f", "now") == ("accompaniment",)
