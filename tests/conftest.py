"""What tests share: signals, a small dataset of made songs, and Prefect kept to a separate folder."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

# Before anything imports prefect: the tests' database must not be the user's, nor another worker's.
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
_HOME = Path(tempfile.gettempdir()) / f"unbraid-tests-{os.getuid()}-{os.getppid()}-{_WORKER}"
(_HOME / "prefect").mkdir(parents=True, exist_ok=True)
os.environ["PREFECT_HOME"] = str(_HOME / "prefect")
os.environ["UNBRAID_MODELS"] = str(_HOME / "models")
for name in [name for name in os.environ if name.startswith("PREFECT_") and name != "PREFECT_HOME"]:
    del os.environ[name]

import torch

torch.set_num_threads(1)  # the suite runs as many processes as there are cores


@pytest.fixture(scope="session")
def dsd100(tmp_path_factory) -> Path:
    """Four made songs of 8 s in DSD100's layout, three in Dev and one in Test."""
    from tasks.demo.compose import write_songs

    root = tmp_path_factory.mktemp("dsd100")
    write_songs(root, train=3, test=1, seconds=8.0)
    return root


@pytest.fixture(scope="session")
def waveform_store(dsd100, tmp_path_factory) -> str:
    """A store of `dsd100` as waveforms alone; to be read only."""
    from storage.sources.datasets import discover
    from storage.store import Store, StoreFormat
    from tasks.ingest import ingest_batch

    path = tmp_path_factory.mktemp("store") / "s.zarr"
    store = Store.create(path, StoreFormat(n_fft=0, hop=0))
    ingest_batch(str(path), discover(dsd100))
    store.consolidate()
    return str(path)


@pytest.fixture(scope="session")
def untrained(tmp_path_factory) -> Path:
    """A weights file of the default preset with random weights, named by its hash."""
    from model.checkpoint import Weights, build, model_id
    from model.preset import load_preset

    torch.manual_seed(0)
    preset = load_preset("stereo")
    data = Weights(preset, build(preset).state_dict(), {}).to_bytes(torch.float16)
    path = tmp_path_factory.mktemp("weights") / f"{model_id('stereo', data)}.safetensors"
    path.write_bytes(data)
    return path


@pytest.fixture(scope="session")
def separator(untrained):
    from tasks.loading import load_separator

    return load_separator(str(untrained), device="cpu")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items):
    """Tests that share a fixture of their module are one group: a single worker makes that fixture, once."""
    for item in items:
        if next(item.iter_markers("xdist_group"), None) is None and shares_a_fixture(item):
            item.add_marker(pytest.mark.xdist_group(item.path.relative_to(item.config.rootpath).as_posix()))
    result = yield
    # pytest-xdist 3.8 appends the group to an attribute that pytest 9.2 no longer reads (pytest-xdist issue 1386).
    for item in items:
        grouped = getattr(item, "_nodeid", item.nodeid)
        if grouped != item.nodeid:
            item._id = type(item._id).parse(grouped)
    return result


def shares_a_fixture(item) -> bool:
    definitions = getattr(item, "_fixtureinfo", None)
    return definitions is not None and any(
        fixtures[-1].scope == "module" for fixtures in definitions.name2fixturedefs.values()
    )


def pytest_sessionfinish() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real audio beside the checkout; tests that want it are skipped where it is not."""
    if not SHARED.is_dir():
        pytest.skip("there is no ../shared/data here")
    return SHARED
