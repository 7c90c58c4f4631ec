import datetime
import itertools
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.running.plan import Counts, Planner, batches
from storage.files.fingerprint import fingerprint
from storage.results.done import DoneTracks
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


def test_the_plan_is_the_catalog_minus_what_is_done(catalog):
    tracks, done = catalog
    _, b, c, d = tracks
    planner = Planner(done)
    assert list(planner.todo(tracks)) == [c, d]
    assert planner.count(tracks) == Counts(todo=2, done=1, failed=1)
    assert list(Planner(done, retry_failed=True).todo(tracks)) == [b, c, d]


def test_a_limit_ends_the_work_and_the_next_plan_goes_on(catalog):
    tracks, done = catalog
    assert [t.path for t in Planner(done, limit=1).todo(tracks)] == ["c"]
    assert Planner(done, limit=1).count(tracks).todo == 1
    done.add("c", fingerprint(tracks[2].source), True)
    assert [t.path for t in Planner(done, limit=1).todo(tracks)] == ["d"]


def test_what_was_not_modified_since_a_date_is_passed_over(catalog):
    tracks, _ = catalog
    os.utime(tracks[0].source, (0, 0))
    planner = Planner(DoneTracks(), since=datetime.datetime(2001, 1, 1))
    assert [t.path for t in planner.todo(tracks)] == ["b", "c", "d"]
    assert planner.count(tracks) == Counts(todo=3, done=0, failed=0, older=1)
