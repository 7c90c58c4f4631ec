import subprocess
import sys

import pytest

pytestmark = [pytest.mark.whole, pytest.mark.xdist_group("flows")]


def test_the_demo_runs_every_step_and_refuses_a_folder_that_no_demo_made(tmp_path):
    command = [sys.executable, "-m", "flows.cli", "demo", "--songs", "3", "--seconds", "6", "--steps", "1", "--out"]
    done = subprocess.run([*command, str(tmp_path / "demo")], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for words in ("× real time", "ceiling:irm", "stems:", "metrics:", "report:"):
        assert words in done.stdout
    assert len(list((tmp_path / "demo" / "out" / "stems").rglob("*.flac"))) == 6
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    refused = subprocess.run([*command, str(tmp_path / "mine")], capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert (tmp_path / "mine" / "file").exists()
