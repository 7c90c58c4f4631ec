"""bench/lease.sh: what a lent GPU machine needs, in pieces that fit into its calls, and back out of them."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path):
    """A repository with the script and two weights files, and data beside it."""
    root = tmp_path / "checkout"
    (root / "bench").mkdir(parents=True)
    (root / "model" / "weights").mkdir(parents=True)
    shutil.copy(ROOT / "bench" / "lease.sh", root / "bench")
    (root / ".gitignore").write_text("/.lease/\n")
    for name in ("stereo-1", "jansson-1"):
        (root / "model" / "weights" / f"{name}.safetensors").write_bytes(bytes(1 << 20))
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-C", str(root)]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *command], check=True)
    random = np.random.default_rng(0)
    for name in ("voices/songs/a.opus", "voices/b.opus", "real_stems/c.opus", "not asked for/d.opus"):
        file = tmp_path / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(random.bytes(700_000))
    return root


def _lease(checkout, *arguments, **environment):
    words = {"NO_WHEELS": "1", "PIECE_MIB": "1", "LEASE": str(checkout.parent / "there"), **environment}
    return subprocess.run(
        ["bash", "-c", 'bash bench/lease.sh "$@"', "lease", *map(str, arguments)],
        cwd=checkout, env={**os.environ, **words}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_what_is_packed_fits_into_calls_and_comes_out_there_as_it_was(checkout):
    data = checkout.parent / "data"
    packed = _lease(checkout, "pack", "--data", data, "voices", "real_stems")
    assert packed.returncode == 0, packed.stderr
    pieces = sorted((checkout / ".lease").glob("*/piece.*"))
    assert [piece.parent.name for piece in pieces] == ["0", "1", "2"]
    assert all(piece.stat().st_size <= 1 << 20 for piece in pieces)
    assert [path.name for path in (checkout / "model" / "weights").iterdir()] == ["stereo-1.safetensors"]
    assert _lease(checkout, "keep").returncode == 0
    there = checkout.parent / "there"
    unpacked = subprocess.run(
        ["bash", "-c", ". bench/lease.sh unpack && echo $UNBRAID"], cwd=checkout, capture_output=True, text=True,
        check=False, env={**os.environ, "NO_WHEELS": "1", "LEASE": str(there)},
    )  # fmt: skip
    assert unpacked.stdout == "python3 -m flows.cli\n", unpacked.stderr
    for name in ("voices/songs/a.opus", "voices/b.opus", "real_stems/c.opus"):
        assert (there / name).read_bytes() == (data / name).read_bytes()
    assert not (there / "not asked for").exists()
    assert _lease(checkout, "restore").returncode == 0
    assert not (checkout / ".lease").exists()
    status = subprocess.run(["git", "status", "--porcelain"], cwd=checkout, capture_output=True, text=True, check=True)
    assert status.stdout == ""


def test_without_data_a_piece_has_the_wheels_alone(checkout):
    packed = _lease(checkout, "pack")
    assert packed.returncode == 0, packed.stderr
    assert packed.stderr == ""
    assert [piece.name for piece in (checkout / ".lease").glob("*/piece.*")] == ["piece.00"]


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (["pack", "--data", "../data", "nothing"], {}, "there is no ../data/nothing"),
        (["pack", "--data", "../data", "voices"], {"PIECE_MIB": "63"}, "which leaves no room for 63"),
        (["away"], {}, "pack, restore, keep or unpack"),
    ],
)
def test_what_cannot_travel_is_a_sentence(checkout, arguments, environment, sentence):
    done = _lease(checkout, *arguments, **environment)
    assert done.returncode != 0
    assert sentence in done.stderr
