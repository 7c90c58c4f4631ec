"""A flow checks its settings once, and its function gets what the check worked out."""

import pytest

from flows.running.parameters import PlainFlow, documented
from flows.running.prefect_flow import PrefectFlow
from flows.settings import FindMashupsOptions


@pytest.fixture
def checks():
    """The settings of every check, in order."""
    return []


@pytest.fixture
def flow_of(checks):
    """Makes a flow of the given kind whose function returns its settings' `top` and what the check returned."""

    def check(options):
        checks.append(options)
        return f"check {len(checks)}"

    def function(options, checked):
        return options.top, checked

    return lambda kind: kind(function, FindMashupsOptions, "counted", check)


def test_a_plain_flow_checks_once(flow_of, checks):
    assert flow_of(PlainFlow)("out", top=3) == (3, "check 1")
    assert len(checks) == 1


def test_a_prefect_flow_called_in_python_checks_once_before_prefect_is_called(flow_of, checks, monkeypatch):
    checks_before_prefect = []

    def run(flow, parameters, **_):
        checks_before_prefect.append(len(checks))
        flow.fn(**parameters)

    monkeypatch.setattr("prefect.flow_engine.run_flow", run)
    assert flow_of(PrefectFlow)("out", top=3) == (3, "check 1")
    assert (checks_before_prefect, len(checks)) == ([1], 1)


def test_a_run_of_a_deployment_checks_in_its_function(flow_of, checks):
    assert flow_of(PrefectFlow).fn(out="out", top=3) == (3, "check 1")
    assert len(checks) == 1


def test_a_retry_of_prefects_checks_anew(flow_of, monkeypatch):
    def run_twice(flow, parameters, **_):
        flow.fn(**parameters)
        flow.fn(**parameters)

    monkeypatch.setattr("prefect.flow_engine.run_flow", run_twice)
    assert flow_of(PrefectFlow)("out") == (20, "check 2")


def test_too_many_arguments_are_an_error_as_in_any_function(flow_of):
    with pytest.raises(TypeError, match="counted takes"):
        flow_of(PlainFlow)(*range(30))


def test_a_flows_docstring_has_its_fields_before_what_it_returns_and_raises():
    text = documented("Ranks pairs.\n\nMore.\n\nReturns:\n    Rows.\n\nRaises:\n    E: Always.", FindMashupsOptions)
    places = [text.index(part) for part in ("More.", "Args:", "    top: ", "Returns:", "Raises:")]
    assert places == sorted(places)
    assert documented("Short.", FindMashupsOptions).startswith("Short.\n\nArgs:\n    ")
