"""bench/gpu.py on the CPU and tiny: the code that a session with a GPU runs once."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from model.checkpoint import Weights, build
from model.preset import load_preset

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tiny(tmp_path):
    """Weights of a small network that sees half a second at a time."""
    preset = load_preset(
        "stereo",
        **{"network_options.rows": 64, "network_options.widths": (8, 12, 16)},
        **{"inference.core_frames": 24, "inference.context_frames": 8},
    )
    torch.manual_seed(0)
    path = tmp_path / "tiny.safetensors"
    path.write_bytes(Weights(preset, build(preset).state_dict(), {}).to_bytes())
    return path


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    specification = importlib.util.spec_from_file_location("bench_gpu", ROOT / "bench" / "gpu.py")
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "bench_gpu", module)
    specification.loader.exec_module(module)
    return module


def _run(bench, monkeypatch, *arguments):
    """Its exit code."""
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--quick", *map(str, arguments)])
    threads = torch.get_num_threads()
    try:
        with pytest.raises(SystemExit) as ended:
            bench.main()
    finally:
        torch.set_num_threads(threads)
    return ended.value.code


@pytest.mark.proof
@pytest.mark.whole
def test_every_part_is_measured_and_the_table_is_markdown(bench, monkeypatch, tiny, waveform_store, tmp_path):
    table = tmp_path / "table.md"
    code = _run(
        bench, monkeypatch, "--model", tiny, "--store", waveform_store, "--preset", "cnn", "--batches", 1, 4,
        "--seconds", 0.3, "--tracks", 2, "--song-seconds", 2, "--steps", 4, "--write", table,
    )  # fmt: skip
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.read_text().splitlines()]
    assert code == 0, table.read_text()
    assert {len(row) for row in rows} == {3}
    names = [row[0] for row in rows]
    for expected in ("difference from the CPU, float32", "network and transforms, float32, batch 4", "training"):
        assert expected in names
    assert any(name.startswith("catalog, 2 processes × 1 tracks") for name in names)
    figures = dict(zip(names, rows, strict=True))
    same = figures["difference from the CPU, float32"][2]
    assert same == "a second time the same bits; beside others the same bits"
    assert float(figures["network and transforms, float32, batch 4"][1].split()[0]) > 0


def test_stems_are_compared_with_the_cpus_and_with_themselves_beside_others(bench, monkeypatch, tiny, tmp_path):
    table = tmp_path / "table.md"
    arguments = ["--model", tiny, "--batches", 1, 4, "--song-seconds", 2, "--write", table]
    assert _run(bench, monkeypatch, *arguments, "--parts", "agreement") == 0
    row = next(line for line in table.read_text().splitlines() if "difference from the CPU, float32" in line)
    assert row.count("the same bits") == 2
    assert "vocals" in row


def test_a_part_that_fails_or_has_no_time_says_so_and_leaves_the_others(bench, monkeypatch, tiny, tmp_path):
    table = tmp_path / "table.md"

    def broken(options, rows):
        raise RuntimeError("no kernel | image\nsecond line")

    monkeypatch.setattr(bench, "agreement", broken)
    arguments = ["--model", tiny, "--batches", 1, "--seconds", 0.1, "--song-seconds", 1, "--write", table]
    assert _run(bench, monkeypatch, *arguments, "--parts", "agreement", "device") == 1
    text = table.read_text()
    assert "RuntimeError: no kernel" in text
    assert "second line" not in text
    assert "batch 1 |" in text
    assert _run(bench, monkeypatch, *arguments, "--parts", "device", "--minutes", -1) == 0
    assert "| device | left out |" in table.read_text()


def test_how_busy_a_gpu_is_comes_from_nvidia_smi_where_nvml_is_not(bench, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(bench.shutil, "which", lambda name: "/usr/bin/nvidia-smi")

    class Told:
        stdout = "85, 2048\n"

    monkeypatch.setattr(bench.subprocess, "run", lambda *_, **__: Told)
    look = bench._looks("cuda")
    assert look() == (0.85, 2 << 30)
    Told.stdout = "[N/A], 2048\n"
    assert look() is None
