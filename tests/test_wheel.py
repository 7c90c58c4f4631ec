"""The wheel, as someone who installs it meets it: in an environment and a folder where nothing else of ours lies."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
import soundfile as sf

from tests.signals import noise

ROOT = Path(__file__).resolve().parent.parent
pytestmark = [pytest.mark.whole, pytest.mark.xdist_group("wheel")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # setuptools builds beside the sources, so they are copied: a checkout stays as it was.
    copy = folder / "sources"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, tracked.decode().split("\0")):
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            target.symlink_to(ROOT / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, copy]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The scripts folder of a fresh environment with the wheel; only its dependencies are borrowed from ours."""
    root = tmp_path_factory.mktemp("environment")
    venv.create(root, with_pip=False, symlinks=True)
    (site,) = root.glob("lib/python*/site-packages")
    # Lines of a .pth are only put on the path: editable installs in the borrowed folders are not.
    (site / "borrowed.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    python = root / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    return root / "bin"


@pytest.fixture
def hostile(tmp_path) -> Path:
    """A folder full of what people call their own modules."""
    for name in ("tasks.py", "storage.py", "flows.py", "unbraid_notes.py", "model/__init__.py", "stems.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"raise SystemExit('the user\\'s own {name} was imported')\n")
    sf.write(tmp_path / "song.wav", noise(2, 44100).T, 44100)
    return tmp_path


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}


def run(*command, cwd) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=clean_environment(), capture_output=True, text=True, timeout=540
    )


def test_the_wheel_holds_code_weights_types_and_terms_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {
        "flows", "tasks", "model", "storage", "unbraid",
    }  # fmt: skip
    for needed in ("unbraid/py.typed", "model/py.typed", "model/presets/stereo.toml", "model/weights/champions.json"):
        assert needed in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.endswith("licenses/model/weights/LICENSE.md") for name in names)
    rooms = ("flows", "tasks", "model", "storage", "unbraid")
    listed = subprocess.run(["git", "ls-files", "-z", *rooms], cwd=ROOT, capture_output=True, check=True).stdout
    tracked = {name for name in listed.decode().split("\0") if name and (ROOT / name).exists()}
    assert tracked <= set(names)


@pytest.mark.timeout(600)
def test_a_song_is_separated_in_a_folder_with_modules_of_the_same_names(installed, hostile):
    done = run(installed / "unbraid", "separate", "song.wav", "--out", "OUT", "--device", "cpu", cwd=hostile)
    assert done.returncode == 0, done.stderr
    assert len(list((hostile / "OUT" / "stems").rglob("*.flac"))) == 2


def test_python_m_unbraid_and_the_library_work_there_too(installed, hostile):
    shown = run(installed / "python", "-m", "unbraid", "models", cwd=hostile)
    assert shown.returncode == 0, shown.stderr
    assert "stereo" in shown.stdout
    program = "import unbraid; print(unbraid.__version__, unbraid.load('stereo', device='cpu').stems)"
    used = run(installed / "python", "-P", "-c", program, cwd=hostile)
    assert used.returncode == 0, used.stderr
    assert "('vocals', 'accompaniment')" in used.stdout
