"""A set in eight bytes each is a set."""

from hypothesis import given
from hypothesis import strategies as st

from storage.results.hash_set import HashSet

_THINGS = st.lists(st.tuples(st.text("ab", max_size=2), st.integers(0, 3)), max_size=30)


@given(batches=st.lists(_THINGS, max_size=4), others=_THINGS)
def test_keys_hold_what_was_put_in_and_nothing_else(batches, others):
    keys, things = HashSet(), set()
    for number, batch in enumerate(batches):
        if number % 2:
            keys.update(batch)
        else:
            for thing in batch:
                keys.add(thing)
        things.update(batch)
        asked = [*batch, *others]
        assert keys.members(asked) == [thing in things for thing in asked] == [thing in keys for thing in asked]
    assert len(keys) == len(things)
    assert HashSet(things).members(sorted(things)) == [True] * len(things)


@given(things=_THINGS)
def test_what_was_added_twice_is_known(things):
    repeated = HashSet(things).repeated()
    assert repeated.members(things) == [things.count(thing) > 1 for thing in things]
