import datetime
import itertools
import os
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.running import plan
from flows.running.plan import Counts, Planner, batches
from storage.files import naming
from storage.files.fingerprint import ABSENT, fingerprint
from storage.files.layout import OutputLayout
from storage.results import metrics
from storage.results.done import DoneTracks, Target, done_tracks
from storage.results.metrics import StemRow
from storage.results.selection import Selection
from storage.sources.catalog import CatalogTrack


@given(sizes=st.lists(st.integers(0, 200 << 20), max_size=200), slots=st.integers(1, 64))
def test_every_item_is_in_one_batch_in_order(sizes, slots):
    items = list(enumerate(sizes))
    cut = list(batches(items, slots, lambda item: item[1]))
    assert [item for batch in cut for item in batch] == items
    assert all(batch for batch in cut)
    assert all(len(batch) == 1 or sum(size for _, size in batch) <= 64 << 20 for batch in cut)


@given(count=st.integers(1, 300), slots=st.integers(1, 16))
def test_there_is_work_for_every_slot_where_there_are_tracks(count, slots):
    assert len(list(batches(range(count), slots, lambda item: 0))) >= min(count, slots)


def test_batches_are_cut_from_a_stream_without_reading_it_to_its_end():
    taken = []

    def stream():
        for number in itertools.count():
            taken.append(number)
            yield number

    first = next(batches(stream(), 2, lambda item: 0))
    assert first == list(range(50))
    assert len(taken) < 500


@pytest.fixture
def catalog(tmp_path):
    tracks = []
    for name in "abcd":
        (tmp_path / name).write_text(name)
        tracks.append(CatalogTrack(name, name, str(tmp_path / name)))
    a, b, _, d = tracks
    done = DoneTracks((t.track_id, fingerprint(t.source), good) for t, good in ((a, True), (b, False), (d, True)))
    (tmp_path / "d").write_text("it has changed")
    return tracks, done


def paths(tracks):
    return [track.path for track in tracks]


def test_the_plan_is_the_catalog_minus_what_is_done(catalog):
    tracks, done = catalog
    planner = Planner(done)
    assert paths(planner.todo(tracks)) == ["c", "d"]
    assert planner.count(tracks) == Counts(todo=2, done=1, failed=1, todo_bytes=15, first=tracks[2].source)
    assert paths(Planner(done, retry_failed=True).todo(tracks)) == ["b", "c", "d"]
    assert paths(Planner(done, force=True).todo(tracks)) == ["a", "b", "c", "d"]


def test_a_limit_ends_the_work_and_the_next_plan_goes_on(catalog):
    tracks, done = catalog
    assert paths(Planner(done, limit=1).todo(tracks)) == ["c"]
    assert Planner(done, limit=1).count(tracks) == Counts(1, 1, 1, todo_bytes=1, first=tracks[2].source)
    done.add("c", fingerprint(tracks[2].source), True)
    assert paths(Planner(done, limit=1).todo(tracks)) == ["d"]


def test_what_was_not_modified_since_a_date_is_skipped(catalog):
    tracks, _ = catalog
    os.utime(tracks[0].source, (0, 0))
    planner = Planner(DoneTracks(), since=datetime.datetime(2001, 1, 1))
    assert paths(planner.todo(tracks)) == ["b", "c", "d"]
    assert planner.count(tracks) == Counts(todo=3, done=0, failed=0, older=1, todo_bytes=16, first=tracks[1].source)


def test_tracks_that_were_not_chosen_are_skipped_and_the_audio_of_the_others_is_counted(catalog):
    tracks, done = catalog
    chosen = Selection([("a", 60.0), ("c", 120.0), ("d", None)])
    planner = Planner(done, chosen=chosen)
    assert paths(planner.todo(tracks)) == ["c", "d"]
    counts = planner.count(tracks)
    assert (counts.todo, counts.done, counts.passed, counts.seconds) == (2, 1, 1, 120.0)
    assert counts.all == 4
    assert Planner(done, chosen=chosen, force=True).count(tracks).seconds == 180.0
    assert Planner(done, chosen=chosen, force=True, limit=1).count(tracks).seconds == 60.0
    assert Planner(done, chosen=Selection([])).count(tracks) == Counts(0, 0, 0, passed=4, seconds=0.0)


def places(*names, template=naming.FOLDERS):
    tracks = [CatalogTrack(name, name, f"/nowhere/{name}") for name in names]
    planner = Planner(DoneTracks(), template=template)
    planner.count(tracks)
    return [track.place for track in planner.todo(tracks)]


def test_a_place_is_the_name_without_its_ending_unless_two_tracks_would_collide():
    assert places("a/song.mp3", "b/song.mp3") == ["a/song", "b/song"]
    assert places("song.mp3", "song.flac", "other.mp3") == ["song.mp3", "song.flac", "other"]


@pytest.mark.parametrize(
    "names",
    [
        ("con.wav", "_con.wav"), ("aux.wav", "_aux.wav"), ("a.wav", "A.WAV"), ("Artist/a.wav", "artist/a.wav"),
        ("caf\u00e9.wav", "cafe\u0301.wav"), ("caf\\xe9.wav", "caf\\x5cxe9.wav"), ("../x.wav", "__/x.wav"),
        ("song.wav", "song/vocals.flac", "song/vocals.wav"), ("song.mp3", "song.flac", "song.mp3.wav"),
        ("song.wav", "song .wav"), ("n" * 250 + ".wav", "n" * 250 + ".mp3"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("template", naming.TEMPLATES)
def test_no_two_tracks_share_a_place_on_any_file_system(names, template):
    files = set()
    for place in places(*names, template=template):
        for stem in ("vocals", "accompaniment"):
            files.add(naming.folded(naming.stem_name(place, stem, "flac", template)))
    assert len(files) == 2 * len(names)
    folders = {folded.rpartition("/")[0] for folded in files}
    assert not files & folders


_PATHS = st.text("aA.e\u0301\u00e9/_~ ", min_size=1, max_size=8).filter(lambda name: name.strip("/. "))


@given(st.lists(_PATHS, unique=True, min_size=2, max_size=12))
def test_places_are_the_same_in_every_order_and_none_is_shared(names):
    chosen = dict(zip(names, places(*names), strict=True))
    assert dict(zip(names[::-1], places(*names[::-1]), strict=True)) == chosen
    distinct = {tuple(naming.safe_parts(name)) for name in names}
    assert len({naming.folded(place) for place in chosen.values()}) >= len(distinct)


@pytest.mark.parametrize(("tracks", "size", "small"), [(50, 1, True), (51, 1, False), (1, (64 << 20) + 1, False)])
def test_a_run_is_small_by_its_tracks_and_by_its_bytes(tracks, size, small):
    assert Counts(todo=tracks, done=0, failed=0, todo_bytes=tracks * size).small is small


@given(names=st.lists(_PATHS, unique=True, min_size=2, max_size=10), before=st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_tracks_that_join_a_catalog_take_no_place_of_those_that_are_done(names, before):
    tracks = [CatalogTrack(name, name, f"/nowhere/{number}") for number, name in enumerate(names)]
    first = Planner(DoneTracks())
    first.count(tracks[:before])
    with tempfile.TemporaryDirectory() as folder:
        out = OutputLayout(Path(folder))
        done = separated(out, list(first.todo(tracks[:before])))
        planner = Planner(done)
        assert planner.count(tracks).done == len(tracks[:before])
        places = [track.place for track in planner.todo(tracks)]
    taken = [track.place for track in first.todo(tracks[:before])]
    distinct = {tuple(naming.safe_parts(name)) for name in names}
    assert len({naming.folded(place) for place in [*taken, *places]}) >= len(distinct)


def separated(out, tracks):
    """What an output holds once tracks have been separated into their places."""
    rows = []
    for track in tracks:
        path = f"stems/{naming.stem_name(track.place, 'vocals', 'flac', naming.FOLDERS)}"
        (out.root / path).parent.mkdir(parents=True, exist_ok=True)
        (out.root / path).touch()
        rows.append(StemRow(
            "m-1", track.track_id, track.path, "vocals", "ok", stem_path=path, settings_hash="s", source=track.source,
            source_fingerprint=track.state.fingerprint if track.state else ABSENT,
        ))  # fmt: skip
    metrics.write_part(out, "r", rows)
    return done_tracks(out, Target("m-1", ("s",), ("vocals",)))


@pytest.mark.parametrize("seed", range(3))
def test_tracks_are_planned_together_as_they_are_one_by_one(tmp_path, monkeypatch, seed):
    generator = random.Random(seed)
    tracks, done = [], DoneTracks()
    for number in range(60):
        source = tmp_path / f"{number}.wav"
        source.write_bytes(bytes(number))
        os.utime(source, (number * 1000, number * 1000))
        tracks.append(CatalogTrack(f"{number}.wav", f"{number % 40}.wav", str(source)))
    out = OutputLayout(tmp_path / "out")
    elsewhere = [CatalogTrack(t.track_id, t.path, str(tmp_path / f"{generator.randrange(60)}.wav")) for t in tracks]
    placed = Planner(done)
    done = separated(out, list(placed.todo(generator.sample(tracks[:30], 20) + elsewhere[30:50])))
    for track in generator.sample(tracks, 20):
        done.add(track.track_id, fingerprint(track.source), well=False)
    for options in (
        {}, {"force": True}, {"retry_failed": True}, {"since": datetime.datetime.fromtimestamp(20_000)}, {"limit": 7},
        {"chosen": Selection([(f"{number}.wav", 1.0) for number in range(0, 60, 3)])},
    ):  # fmt: skip
        plans = []
        for together in (1, 7, 1000):
            monkeypatch.setattr(plan, "_TRACKS_AT_A_TIME", together)
            planner = Planner(done, **options)
            plans.append((planner.count(tracks), list(planner.todo(tracks))))
        assert plans[0] == plans[1] == plans[2]
        counts, todo = plans[0]
        assert counts.told_apart >= 10
        assert len(todo) == counts.todo > 0
