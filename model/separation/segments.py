"""Segments: what a network sees of a file at once."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Segment:
    """Samples (channels, samples) that cover `frames` frames of a file and the context that the file has for them.

    `before` and `after` count the frames of context that lie outside the file, `first` the frame the core begins with.
    """

    samples: torch.Tensor
    n_fft: int
    hop: int
    first: int
    frames: int
    before: int
    after: int

    def core(self, spectrum: torch.Tensor) -> torch.Tensor:
        """The frames that are separated.

        Args:
            spectrum: (channels, frames, bins) of all samples.
        """
        return spectrum[:, self.first : self.first + self.frames]

    @property
    def mixture(self) -> torch.Tensor:
        """The samples that are ready when this segment is, (channels, frames · hop)."""
        return self.samples[:, self.first * self.hop :][:, : self.frames * self.hop]
