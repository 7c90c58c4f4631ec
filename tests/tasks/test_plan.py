from hypothesis import given
from hypothesis import strategies as st

from storage.catalog import CatalogTrack
from storage.fingerprint import fingerprint
from storage.metrics import DoneKey
from tasks.plan import batches, plan


@given(sizes=st.lists(st.integers(0, 200 << 20), max_size=200), slots=st.integers(1, 64))
def test_every_item_is_in_one_batch_in_order(sizes, slots):
    items = list(enumerate(sizes))
    cut = batches(items, slots, lambda item: item[1])
    assert [item for batch in cut for item in batch] == items
    assert all(batch for batch in cut)
    assert all(len(batch) == 1 or sum(size for _, size in batch) <= 64 << 20 for batch in cut)


@given(count=st.integers(1, 300), slots=st.integers(1, 16))
def test_there_is_work_for_every_slot_where_there_are_tracks(count, slots):
    assert len(batches(range(count), slots, lambda item: 0)) >= min(count, slots)


def test_the_plan_is_the_catalog_minus_what_is_done(tmp_path):
    tracks = []
    for name in "abcd":
        (tmp_path / name).write_text(name)
        tracks.append(CatalogTrack(name, name, str(tmp_path / name)))

    def key(track, model="m", settings="s"):
        return DoneKey(track.track_id, fingerprint(track.source), model, settings)

    a, b, c, d = tracks
    done = {key(a): "ok", key(b): "failed", key(c, model="older"): "ok", key(d): "ok"}
    (tmp_path / "d").write_text("it has changed")
    found = plan(tracks, done, model_id="m", settings_hash="s")
    assert (found.todo, found.done, found.failed) == ([c, d], 1, 1)
    assert plan(tracks, done, model_id="m", settings_hash="s", retry_failed=True).todo == [b, c, d]
