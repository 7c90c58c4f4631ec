"""A catalog in a bucket comes apart into a bucket, by the command a user types."""

import io

import numpy as np
import pytest
import soundfile as sf

from storage.audio.reader import read
from storage.files.atomic import write_bytes
from storage.files.layout import OutputLayout
from storage.files.location import location
from storage.results.metrics import read_all
from tests.flows.test_cluster_run import unbraid
from tests.objects import object_store
from tests.signals import noise

pytestmark = [pytest.mark.whole, pytest.mark.xdist_group("objects")]


def test_a_catalog_in_a_bucket_is_separated_into_a_bucket_once(untrained, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with object_store("music") as bucket:
        audio = {name: noise(2, 44100) for name in ("a/one", "b/two")}
        for name, samples in audio.items():
            data = io.BytesIO()
            sf.write(data, samples.T, 44100, format="FLAC", subtype="PCM_16")
            write_bytes(location(f"{bucket}/songs/{name}.flac"), data.getvalue())
        write_bytes(location(f"{bucket}/songs/bad.mp3"), b"nothing that plays")
        command = ["separate", f"{bucket}/songs", "--out", f"{bucket}/out", "--model", untrained, "--workers", 2]
        first = unbraid(*command)
        assert first.returncode == 3, first.stderr
        assert f"{bucket}/songs/bad.mp3" in first.stderr + first.stdout
        rows = read_all(OutputLayout(location(f"{bucket}/out"))).to_pylist()
        assert sorted((row["path"], row["stem"] or "", row["status"]) for row in rows) == [
            ("a/one.flac", "accompaniment", "ok"), ("a/one.flac", "vocals", "ok"),
            ("b/two.flac", "accompaniment", "ok"), ("b/two.flac", "vocals", "ok"), ("bad.mp3", "", "failed"),
        ]  # fmt: skip
        for name in audio:
            stems = [read(f"{bucket}/out/stems/{name}/{stem}.flac")[0] for stem in ("vocals", "accompaniment")]
            mixture, _ = read(f"{bucket}/songs/{name}.flac")
            assert np.abs(np.sum(stems, axis=0) - mixture).max() <= 2**-15
        again = unbraid(*command)
        assert again.returncode == 0  # an old failure is no news
        assert len(read_all(OutputLayout(location(f"{bucket}/out")))) == len(rows)
        answer = unbraid("query", f"{bucket}/out", "select count(distinct track_id) as n from metrics", "--csv")
        assert answer.stdout.split() == ['"n"', "3"]
        names = {path.name for path in location(f"{bucket}/out/runs").iterdir()}
        assert all(name.endswith(".json") for name in names)
    # Where the commands have theirs: the machine's own may hold those of other runs.
    assert not list(tmp_path.glob("unbraid-scratch-*/*"))
