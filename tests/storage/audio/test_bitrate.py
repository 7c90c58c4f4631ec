import mutagen.mp3
import numpy as np
import pytest

from storage.audio.writer import AudioWriter, StemFormat


@pytest.mark.parametrize(
    ("rate", "kbps", "written"),
    [(44100, 320, 320), (44100, 128, 128), (44100, 8, 32), (22050, 320, 160), (8000, 64, 64)],
)
def test_mp3_has_the_bitrate_that_was_chosen_as_far_as_its_rate_allows(tmp_path, rate, kbps, written):
    with AudioWriter(tmp_path / "x.mp3", StemFormat("mp3", "int16", kbps), rate, 2, rate) as writer:
        writer.write(np.random.default_rng(0).normal(0, 0.1, (2, rate)).astype(np.float32), last=True)
    assert mutagen.mp3.MP3(tmp_path / "x.mp3").info.bitrate == pytest.approx(1000 * written, rel=0.03)
