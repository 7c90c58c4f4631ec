"""The long proofs of bench/, in small: kills and mutated files."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

pytestmark = [pytest.mark.proof, pytest.mark.whole, pytest.mark.xdist_group("runs")]


def test_every_track_is_there_once_though_workers_and_the_flow_are_killed(tmp_path):
    from chaos import chaos

    assert chaos(tmp_path, seed=3, tracks=60, workers=3, flows=1) == (3, 1)


def test_mutated_files_are_separated_or_refused_and_never_more(tmp_path):
    from fuzz import fuzz

    counts = fuzz(tmp_path, 120, seed=1)
    assert sum(counts.values()) == 120
    assert {status for _, status in counts} == {"ok", "failed"}
