import numpy as np
import pytest
import torch

from model.spectra.axis import gathering, row_centres, spreading
from model.spectra.bands import Gather, Spread


@pytest.mark.parametrize(("bins", "rows"), [(2049, 512), (513, 128), (64, 64), (2049, 1024)])
def test_rows_rise_from_the_first_bin_to_the_last(bins, rows):
    centres = row_centres(bins, rows)
    assert len(centres) == rows
    assert centres[0] == 0
    assert centres[-1] == bins - 1
    assert (np.diff(centres) > 0.99).all()
    assert (np.diff(centres, n=2) > -1e-9).all()


@pytest.mark.parametrize(("bins", "rows"), [(2049, 512), (513, 128)])
def test_a_flat_spectrum_stays_flat_there_and_back(bins, rows):
    flat = np.ones(bins, np.float32)
    np.testing.assert_allclose(gathering(bins, rows) @ flat, np.ones(rows), rtol=1e-5)
    np.testing.assert_allclose(spreading(bins, rows) @ np.ones(rows, np.float32), flat, rtol=1e-5)


def test_no_bin_goes_unseen():
    assert (gathering(2049, 512).sum(0) > 0).all()
    assert (spreading(2049, 512).sum(0) > 0).all()


def test_below_the_knee_rows_are_bins():
    identity = spreading(2049, 512) @ gathering(2049, 512)
    np.testing.assert_allclose(identity[:100, :100], np.eye(100), atol=1e-6)


@pytest.mark.parametrize(("bins", "rows"), [(2049, 512), (513, 128), (64, 64), (2049, 256)])
def test_rows_gathered_without_gradients_are_those_of_the_matrix(bins, rows):
    torch.manual_seed(0)
    magnitude = torch.rand(2, 3, 7, bins).transpose(-1, -2)
    gather = Gather(bins, rows)
    with torch.no_grad():
        torch.testing.assert_close(gather(magnitude), torch.from_numpy(gathering(bins, rows)) @ magnitude)


@pytest.mark.parametrize(("bins", "rows"), [(2049, 512), (513, 128), (64, 64), (2049, 256)])
@pytest.mark.parametrize("layer", [Gather, Spread])
def test_with_gradients_values_and_gradients_are_those_of_the_matrix(layer, bins, rows):
    torch.manual_seed(0)
    matrix = torch.from_numpy(gathering(bins, rows) if layer is Gather else spreading(bins, rows))
    ours = torch.rand(2, 3, matrix.shape[1], 7, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    slope = torch.randn(2, 3, matrix.shape[0], 7)
    after, expected = layer(bins, rows)(ours), matrix @ theirs
    torch.testing.assert_close(after, expected)
    (after * slope).sum().backward()
    (expected * slope).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
