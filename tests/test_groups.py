"""Groups of tests: each stays on one of the processes that share the suite, and makes its fixtures once."""

import pytest


@pytest.fixture(scope="module")
def shared():
    return "made once"


def group_of(request) -> str:
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("groups are those of pytest -n 2 --dist loadgroup, as `make test` runs it")
    return request.node.nodeid.rpartition("@")[2]


@pytest.mark.xdist_group("named")
def test_a_group_is_part_of_the_id_by_which_tests_are_scheduled(request):
    assert group_of(request) == "named"


def test_tests_that_share_a_fixture_are_a_group(request, shared):
    assert group_of(request) == "tests/test_groups.py"


def test_a_test_that_shares_none_is_not_in_a_group(request):
    assert "@" not in request.node.nodeid or group_of(request) == ""
