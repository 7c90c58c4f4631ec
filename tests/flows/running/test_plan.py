import datetime
import itertools
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.running.plan import Counts, Planner, batches
from storage.files import naming
from storage.files.fingerprint import fingerprint
from storage.results.done import DoneTracks
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
