"""Which Prefect server a run belongs to, what it tells it at the end, and what it does when it is gone."""

import os
import subprocess
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from flows.running import orphans, phases
from flows.running.environment import prefect_server

URL = "http://127.0.0.1:4299/api"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder and a home without any setting of Prefect's."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_server_set_in_a_profile_is_seen_like_one_in_the_environment(elsewhere, monkeypatch):
    assert prefect_server() is None
    subprocess.run([sys.executable, "-m", "prefect", "config", "set", f"PREFECT_API_URL={URL}"], check=True)
    assert prefect_server() == URL
    monkeypatch.setenv("PREFECT_PROFILE", "another")
    assert prefect_server() is None
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    assert prefect_server() == "http://127.0.0.1:1/api"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".env", f"export PREFECT_API_URL='{URL}'\n"),
        ("prefect.toml", f'[api]\nurl = "{URL}"\n'),
        ("pyproject.toml", f'[tool.prefect.api]\nurl = "{URL}"\n'),
    ],
)
def test_a_server_set_in_the_current_folder_is_seen(elsewhere, name, text):
    (elsewhere / name).write_text(text)
    assert prefect_server() == URL


@dataclass(frozen=True)
class Summary:
    done: int
    failed: int


@pytest.mark.parametrize(("done", "failed", "kind"), [(3, 1, "COMPLETED"), (0, 4, "FAILED")])
def test_a_run_with_failed_tracks_ends_in_a_separate_state(done, failed, kind):
    from flows.running.prefect_flow import final_state

    state = final_state(Summary(done, failed))
    assert (state.name, state.type.value) == ("CompletedWithFailures", kind)
    assert state.message == f"{done} tracks done, {failed} failed; the rows say why"
    assert final_state(Summary(done, 0)) is None


def test_an_embedded_server_that_is_gone_is_noticed_and_no_phase_calls_it(monkeypatch):
    def server(ended):
        return SimpleNamespace(server_process=None if ended is None else SimpleNamespace(poll=lambda: ended or None))

    def servers(*processes):
        instances = dict(enumerate(map(server, processes)))
        module = SimpleNamespace(SubprocessASGIServer=SimpleNamespace(_instances=instances))
        monkeypatch.setitem(sys.modules, "prefect.server.api.server", module)

    servers()
    assert not orphans.own_is_lost()
    servers(None, 0)  # one that was ended as it should be, one that runs
    assert not orphans.own_is_lost()
    servers(None, -9)
    assert orphans.own_is_lost()
    monkeypatch.setattr(phases, "with_prefect", lambda: True)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")  # nobody answers there
    assert phases.phase("sum")(lambda a, b: a + b)(1, b=2) == 3
