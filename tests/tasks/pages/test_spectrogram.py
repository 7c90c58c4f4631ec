"""Pictures of spectrograms, computed without torch, against the networks' own transform and others' colours."""

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image

from model.spectra.axis import gathering
from model.spectra.frontend import FrontEnd, analysis
from tasks.pages.colours import MAGMA
from tasks.pages.spectrogram import levels, picture
from tests.signals import noise


@pytest.mark.parametrize(("channels", "samples", "rate"), [(2, 44100, 44100), (1, 9000, 44100), (2, 30000, 22050)])
def test_levels_are_the_power_of_the_networks_frames_in_their_rows(channels, samples, rate):
    signal = noise(channels, samples)
    n_fft = FrontEnd(44100, 4096, 1024).at_rate(rate).n_fft
    power = levels(signal, rate, width=40, rows=96)
    columns = power.shape[1]
    padded = torch.nn.functional.pad(torch.from_numpy(signal), (n_fft // 2, n_fft))
    frames = analysis(padded, n_fft, samples // columns)[:, :columns]
    expected = frames.abs().square().mean(0).numpy() @ gathering(n_fft // 2 + 1, 96).T * (4.0 / n_fft) ** 2
    np.testing.assert_allclose(power, expected.T, rtol=1e-3, atol=1e-9)


def test_colours_are_matplotlibs_magma():
    np.testing.assert_array_equal(MAGMA, (colormaps["magma"](np.arange(256))[:, :3] * 255).astype(np.uint8))


def test_a_picture_has_the_colours_that_matplotlib_gives_its_levels():
    power = 10 ** (-np.linspace(0, 9, 60, dtype=np.float32)).reshape(6, 10)
    drawn = np.asarray(Image.open(io.BytesIO(picture(power, name="PNG"))).convert("RGB"))
    shade = np.clip(1 + 10 * np.log10(power / power.max()) / 80, 0, 1)
    np.testing.assert_array_equal(drawn, (colormaps["magma"](shade[::-1])[..., :3] * 255).astype(np.uint8))


def test_reports_are_drawn_without_torch_and_matplotlib():
    program = (
        "import sys, tasks.pages.report as _; print(*{'torch', 'matplotlib', 'scipy', 'librosa'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == []
