import pytest


@pytest.fixture
def nothing_starts(monkeypatch):
    """What would start a server, a cluster or a worker is an error."""

    def refuse(*_, **__):
        raise AssertionError("something was started")

    monkeypatch.setattr("prefect.flow_engine.run_flow", refuse)
    monkeypatch.setattr("distributed.LocalCluster", refuse)
