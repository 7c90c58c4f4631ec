"""What an output holds, whichever files its rows lie in."""

import dataclasses
import datetime
import itertools
import random

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.files import naming
from storage.files.layout import OutputLayout
from storage.results import metrics, track_rows
from storage.results.done import Target, done_tracks
from storage.results.intake import Intake
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
            done.holds(track), done.place(track, (track,)), done.taken(track), done.anothers([(track, "/elsewhere")]),
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


@pytest.mark.parametrize(
    ("name", "earlier"),
    [("settings_hash", "before"), ("source_fingerprint", "g"), ("model_id", "m-2"), ("source", "moved")],
)
def test_stems_of_an_earlier_separation_are_not_those_of_the_latest(tmp_path, name, earlier):
    out = OutputLayout(tmp_path)
    here, moved = str(tmp_path / "here"), str(tmp_path / "moved")
    for file in (here, moved):
        open(file, "w").close()
    latest = {"model_id": "m-1", "settings_hash": "now", "source_fingerprint": "f", "source": here}
    before = {**latest, name: moved if name == "source" else earlier}
    for minute, (made, stems) in enumerate([(before, STEMS), (latest, ["vocals"])]):
        when = datetime.datetime(2026, 1, 1, 0, minute, tzinfo=datetime.UTC)
        metrics.write_part(out, f"r{minute}", [
            StemRow(track_id="a", path="a", stem=stem, status="ok", finished_at=when, stem_path=f"stems/a/{stem}.flac",
                    **made) for stem in stems
        ])  # fmt: skip
    (out.stems / "a").mkdir(parents=True)
    for stem in STEMS:
        (out.stems / "a" / f"{stem}.flac").touch()
    done = done_tracks(out, TARGET)
    same = name == "source"  # a file that was moved is the same file
    assert done.ended("a", "f") is (True if same else None)
    assert done.missing("a", "f", "now") == (() if same else ("accompaniment",))
    assert done.anothers([("a", here), ("a", moved), ("a", "s3://b/a")]) == [False, not same, True]


TARGETS = [
    TARGET,
    dataclasses.replace(TARGET, format="wav", template=naming.FLAT),
    dataclasses.replace(TARGET, stems=("vocals",), beside=True),
]


def test_only_a_failure_of_what_is_required_counts(tmp_path):
    out = OutputLayout(tmp_path)
    required = {"model_id": "m-1", "settings_hash": "now", "format": "flac"}
    others = {"a": {}, "b": {"settings_hash": "other"}, "c": {"model_id": "m-2"}, "d": {"format": "wav"}}
    metrics.write_part(out, "r", [
        StemRow(track_id=track, path=track, stem=None, status="failed", source_fingerprint="f", **required | other)
        for track, other in others.items()
    ])  # fmt: skip
    done = done_tracks(out, TARGET)
    assert [done.ended(track, "f") for track in others] == [False, None, None, None]


def test_a_name_is_anothers_where_any_of_its_files_still_exists(tmp_path):
    out = OutputLayout(tmp_path / "out")
    for name in ("old", "new"):
        (tmp_path / name).touch()
    rows = [
        StemRow("m-1", "a", "a", stem, "ok", settings_hash="now", source_fingerprint="f", source=str(tmp_path / source),
                stem_path=path)
        for source in ("gone", "old") for stem, path in (("vocals", "stems/a/vocals.flac"), ("drums", None))
    ]  # fmt: skip
    metrics.write_part(out, "r", rows)
    done = done_tracks(out, TARGET)
    assert done.anothers([("a", str(tmp_path / "new")), ("b", str(tmp_path / "new"))]) == [True, False]
    assert done.stems == ("vocals",)  # drums were scored and not kept


DIFFERING = ("model", "settings", "fingerprint", "source", "format", "folder", "template", "place", "status", "stems")


def mixed_history(generator, target) -> list[StemRow]:
    """Half of 48 tracks are separated once, as is required, the others up to three times with up to two differences."""
    rows = []
    folders = ["stems/", "models/m-1/", "models/m-2/"]
    for number in range(48):
        track, plain = f"a/{number}", number % 2 == 0
        for turn in range(1 if plain else generator.randrange(1, 4)):
            differing = [] if plain else generator.sample(DIFFERING, generator.choice([0, 1, 1, 2]))

            def usually(name, value, *others, differing=differing):
                return generator.choice(others) if name in differing else value

            made = {
                "model_id": usually("model", target.model_id, "m-2"), "track_id": track, "path": track,
                "settings_hash": usually("settings", "now", "before", "other"),
                "source_fingerprint": usually("fingerprint", "f", "g"),
                "source": usually("source", f"/music/{track}", None, f"/other/{track}"),
                "format": usually("format", target.format, "ogg", None),
                "finished_at": datetime.datetime(2026, 1, 1, turn, number, tzinfo=datetime.UTC),
            }  # fmt: skip
            folder = usually("folder", folders[target.beside], *folders)
            template = usually("template", target.template, *naming.TEMPLATES)
            place = usually("place", track, f"{track}.x")
            status = usually("status", "ok", "failed", "interrupted")
            if status != "ok":
                where = folder + place + "/" if status == "interrupted" else None
                rows.append(StemRow(stem=None, status=status, stem_path=where, **made))
                continue
            for stem in usually("stems", list(target.stems), ["vocals"], ["accompaniment", "vocals"]):
                path = folder + naming.stem_name(place, stem, made["format"] or "flac", template)
                rows.append(StemRow(stem=stem, status="ok", stem_path=path, **made))
    return rows


def replayed(out, target, rows) -> tuple:
    """A track's rows, oldest first: (the fingerprint it failed with, its place, missing stems, separation in place)."""
    below = f"models/{target.model_id}/" if target.beside else "stems/"
    failed = in_place = None
    place: str | None = None
    paths: dict[tuple, set[str | None]] = {}  # that each separation made
    for row in sorted(rows, key=lambda row: row.finished_at):
        here = (row.stem_path or "").startswith(below)
        if (row.model_id, row.settings_hash in target.settings) == (target.model_id, True):
            if here:
                failed = None
            elif row.status == "failed" and row.format in (None, target.format):
                failed = row.source_fingerprint
        if here:
            in_place = (row.model_id, row.settings_hash, row.source_fingerprint)
            place = naming.place_of(row.stem_path.removeprefix(below), row.stem)
            in_place = in_place if row.status == "ok" else None
            if in_place:
                paths.setdefault(in_place, set()).add(row.stem_path)
    if in_place is None or in_place[0] != target.model_id or in_place[1] not in target.settings:
        return failed, place, None, None
    assert place is not None  # where something is in place
    required = [(stem, below + naming.stem_name(place, stem, target.format, target.template)) for stem in target.stems]
    missing = [stem for stem, path in required if path not in paths[in_place] or not (out.root / path).exists()]
    return failed, place, tuple(missing), in_place


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("seed", range(6))
def test_what_rows_mean_is_what_they_mean_track_by_track(tmp_path, seed, target):
    generator = random.Random(seed)
    out, rows = OutputLayout(tmp_path), mixed_history(generator, target)
    metrics.write_part(out, "r", generator.sample(rows, len(rows)))
    for row in rows:
        if row.stem is not None and generator.random() < 0.9:
            (out.root / row.stem_path).parent.mkdir(parents=True, exist_ok=True)
            (out.root / row.stem_path).touch()
    done = done_tracks(out, target)
    states = set()
    for track in sorted({row.track_id for row in rows}):
        of_track = [row for row in rows if row.track_id == track]
        failed, place, missing, separation = replayed(out, target, of_track)
        for fingerprint in "fg":
            mine = separation is not None and separation[2] == fingerprint
            ended = False if failed == fingerprint else True if mine and not missing else None
            assert done.ended(track, fingerprint) is ended
            for settings in ("now", "before", "other"):
                lacking = missing if mine and separation[1] == settings else ()
                assert done.missing(track, fingerprint, settings) == lacking
            states.add((ended, bool(missing and mine)))
        assert done.place(track, (track, f"{track}.x")) == place
        assert (done.holds(track), done.taken(place or track)) == (place is not None, place is not None)
        sources = {row.source for row in of_track} - {None}
        for source in (f"/music/{track}", f"/other/{track}", "s3://b/elsewhere"):
            other = bool(sources) and source not in sources and source.startswith("s3")  # the others are not there
            assert done.anothers([(track, source)]) == [other]
    assert len(states) > 1


def test_tracks_that_were_separated_once_are_taken_in_columns(tmp_path, monkeypatch):
    out = OutputLayout(tmp_path)
    metrics.write_part(out, "r", [row for row in mixed_history(random.Random(0), TARGET) if int(row.path[2:]) % 2 == 0])
    monkeypatch.setattr(Intake, "_take_any", lambda self, rows: pytest.fail(f"{rows[0].track_id} is not"))
    done = done_tracks(out, TARGET)
    assert [done.missing(f"a/{number}", "f", "now") for number in range(48)] == [STEMS, ()] * 24


@given(lengths=st.lists(st.integers(1, 5), max_size=12), cuts=st.sets(st.integers(0, 60)))
def test_no_batch_parts_the_rows_of_a_track(lengths, cuts):
    names = [f"{number:02}" for number, length in enumerate(lengths) for _ in range(length)]
    ends = [0, *sorted(cut for cut in cuts if cut <= len(names)), len(names)]
    batches = [pa.record_batch({"track_id": pa.array(names[a:b], pa.string())}) for a, b in itertools.pairwise(ends)]
    blocks = [block.column("track_id").to_pylist() for block in track_rows._unparted(batches)]
    assert list(itertools.chain(*blocks)) == names
    assert sum(len(set(block)) for block in blocks) == len(lengths)
