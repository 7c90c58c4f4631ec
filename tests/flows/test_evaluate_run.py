import re
from pathlib import Path

import pytest

from flows.evaluate import evaluate
from flows.ingest import ingest
from model.scoring.museval_engine import museval
from storage.errors import DatasetError
from storage.files.layout import OutputLayout
from storage.results.metrics import read_all
from storage.store import Store

pytestmark = [pytest.mark.whole, pytest.mark.xdist_group("flows")]


def test_scores_lie_between_floor_and_ceiling_and_floor_is_musevals(dsd100, untrained, tmp_path):
    import numpy as np

    from storage.audio.reader import read
    from tasks.evaluate import CEILING, FLOOR

    summary = evaluate(str(dsd100), str(tmp_path / "out"), model=str(untrained), workers=1)
    assert (summary.done, summary.failed, summary.exit_code) == (1, 0, 0)
    assert re.findall(r'data-stem="([^"]+)"', Path(summary.report).read_text()) == [
        "mixture", "vocals", "accompaniment", "true vocals",
    ]  # fmt: skip
    rows = {(r["model_id"], r["stem"]): r for r in read_all(OutputLayout(tmp_path / "out")).to_pylist()}
    assert len(rows) == 6
    for stem in ("vocals", "accompaniment"):
        assert rows[FLOOR, stem]["sdr"] < rows[CEILING, stem]["sdr"]
        assert rows[summary.model_id, stem]["sdr"] < rows[CEILING, stem]["sdr"]
    folder = dsd100 / "Sources" / "Test" / "004 - The Synthetics - Song 3"
    stems = {p.stem: read(p)[0] for p in folder.iterdir()}
    mixture, rate = read(dsd100 / "Mixtures" / "Test" / folder.name / "mixture.wav")
    references = np.stack([stems["vocals"].T, (stems["drums"] + stems["bass"] + stems["other"]).T])
    sdr = museval().metrics.bss_eval(
        references, np.stack([mixture.T] * 2), window=rate, hop=rate, compute_permutation=False, filters_len=16,
        framewise_filters=False, bsseval_sources_version=False,
    )[0]  # fmt: skip
    assert rows[FLOOR, "vocals"]["sdr"] == pytest.approx(np.nanmedian(sdr[0]), abs=1e-6)
    assert rows[FLOOR, "accompaniment"]["sdr"] == pytest.approx(np.nanmedian(sdr[1]), abs=1e-6)


def test_a_dataset_goes_in_once_and_leaks_are_refused_by_name(dsd100, tmp_path, capsys):
    import shutil

    store = str(tmp_path / "s.zarr")
    first = ingest(str(dsd100), store, spectrograms=False, workers=2)
    assert (first.done, first.before, first.failures) == (4, 0, ())
    assert "4" in first.page
    assert re.search(r"4 tracks, 0\.01 hours, .*: at most 0\.0\d GB of disk", capsys.readouterr().err)
    again = ingest(str(dsd100), store, spectrograms=False)
    assert (again.done, again.before) == (0, 4)
    copy = tmp_path / "copied" / "The Synthetics - Song 3"
    shutil.copytree(dsd100 / "Sources" / "Test" / "004 - The Synthetics - Song 3", copy)
    with pytest.raises(DatasetError, match="1 songs would be in both .*The Synthetics - Song 3"):
        ingest(str(tmp_path / "copied"), store, spectrograms=False)
    dropped = ingest(str(tmp_path / "copied"), store, spectrograms=False, drop_leaked=True)
    assert dropped.done == 0
    assert len(Store.open(tmp_path / "s.zarr").tracks()) == 4
