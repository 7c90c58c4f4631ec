import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.separation.grid import on_grid
from tests.signals import noise


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), level=st.floats(0.01, 3.0), bits=st.sampled_from([16, 24]))
def test_stems_of_an_integer_mixture_add_up_exactly_and_fit_the_integers(seed, level, bits):
    mixture = noise(2, 500, seed, level=0.8)
    vocals = (np.random.default_rng(seed).standard_normal((2, 500)) * level).astype(np.float32)
    stems = on_grid(mixture, {"vocals": vocals, "accompaniment": mixture - vocals}, "accompaniment", bits)
    steps = 2.0 ** (bits - 1)
    total = np.zeros((2, 500))
    for stem in stems.values():
        assert stem.max() <= 1 - 1 / steps
        assert stem.min() >= -1
        assert np.array_equal(stem * steps, np.round(stem * steps))
        total += stem
    np.testing.assert_array_equal(total, mixture)


@settings(deadline=None, max_examples=80)
@given(
    data=st.data(),
    bits=st.sampled_from([16, 24]),
    names=st.sampled_from([("vocals", "accompaniment"), ("vocals", "drums", "bass", "other")]),
)
def test_stems_at_full_scale_add_up_however_many_they_are(data, bits, names):
    """What clips in one moves on through all: estimates at and beyond full scale in every stem."""
    steps = 2 ** (bits - 1)
    level = st.floats(-1.5, 1.5, width=32) | st.sampled_from([-1.0, 1.0])
    samples = 24
    mixture = np.array(
        data.draw(st.lists(st.integers(-steps, steps - 1), min_size=samples, max_size=samples)), np.float64
    )
    mixture = (mixture / steps).astype(np.float32)[None]
    stems = {
        name: np.array(data.draw(st.lists(level, min_size=samples, max_size=samples)), np.float32)[None]
        for name in names[:-1]
    }
    stems[names[-1]] = mixture - sum(stems.values())
    written = on_grid(mixture, stems, names[-1], bits)
    for stem in written.values():
        assert -1 <= stem.min() <= stem.max() <= 1 - 1 / steps
        assert np.array_equal(stem.astype(np.float64) * steps, np.round(stem.astype(np.float64) * steps))
    np.testing.assert_array_equal(sum(stem.astype(np.float64) for stem in written.values()), mixture)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_stems_of_a_lossy_mixture_over_full_scale_add_up_within_half_a_step(seed):
    random = np.random.default_rng(seed)
    mixture = (random.standard_normal((2, 400)) * 0.5).clip(-1.9, 1.9).astype(np.float32)
    vocals = mixture * random.uniform(0, 1, (2, 400)).astype(np.float32)
    stems = on_grid(mixture, {"vocals": vocals, "accompaniment": mixture - vocals}, "accompaniment", 16)
    assert np.abs(sum(s.astype(np.float64) for s in stems.values()) - mixture).max() <= 0.5 / 32768 + 1e-12


def test_float_stems_are_left_alone():
    stems = {"vocals": noise(1, 10), "accompaniment": noise(1, 10, 1)}
    assert on_grid(noise(1, 10), stems, "accompaniment", None) is stems
