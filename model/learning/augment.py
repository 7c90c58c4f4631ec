"""Augmentation: changes that make new stems of those at hand, as batched torch operations on a CPU or a GPU.

Audio is float32 (batch, channels, samples), one or two channels. What is done to each item comes in as tensors of one
value per item; `model.learning.mixing` draws them, nothing here is random. No function changes its argument.
"""

import functools

import numpy as np
import torch
from scipy import fft

_POINTS = 2049  # of a frequency response between 0 and half the rate; what lies between is interpolated
_BLOCK = 64  # samples of an envelope that are one value
_CHUNK = 8192  # samples whose resampling stays in a core's cache
_SMOOTHING = 0.998  # of a compressor's level, per sample
_WANDER = 0.002  # seconds that a doubled voice's delay wanders either way
ROOM_SECONDS, ROOM_DELAY = 1.5, 0.06  # of a reverberation and of the pause before it, at most
ROOMS = 32  # noises that reverberations are made of


def decibels(value: float) -> float:
    """Amplitude factor of a gain.

    Args:
        value: The gain in dB.
    """
    return float(10.0 ** (value / 20.0))


def at_speed(audio: torch.Tensor, factors: torch.Tensor, samples: int) -> torch.Tensor:
    """Play faster by resampling onto another grid, interpolated by cubics through four samples (Catmull and Rom, 1974).

    What lies above half the new rate is folded back: nothing below 15 kHz for factors up to 1.3 at 44.1 kHz.

    Args:
        audio: (batch, channels, at least ⌈samples · factor⌉ + 4).
        factors: (batch,) of speed, and with it pitch.
        samples: Length of the result.

    Returns:
        (batch, channels, samples).
    """
    out = audio.new_empty(*audio.shape[:2], samples)
    step = samples if audio.is_cuda else _CHUNK
    for start in range(0, samples, step):
        stop = min(start + step, samples)
        position = torch.arange(start, stop, device=audio.device, dtype=torch.float64) * factors.double()[:, None]
        first = position.long()
        after = (position - first).float()[:, None]
        before = 1 - after
        product = after * before
        outer = product * before * -0.5, product * after * -0.5
        inner = before.sub_(outer[0], alpha=2).add_(outer[1]), after.sub_(outer[1], alpha=2).add_(outer[0])
        index = first[:, None].expand(-1, audio.shape[1], -1)
        piece = out[..., start:stop]
        torch.mul(audio.gather(-1, index), outer[0], out=piece)
        for shift, weight in ((1, inner[0]), (2, inner[1]), (3, outer[1])):
            piece.addcmul_(audio[..., shift:].gather(-1, index), weight)
    return out


def compress(audio: torch.Tensor, thresholds: torch.Tensor, ratios: torch.Tensor) -> torch.Tensor:
    """Downward compression as mixing engineers put on voices: level above a threshold grows more slowly.

    Args:
        audio: (batch, channels, samples).
        thresholds: (batch,) as a factor to each item's highest level.
        ratios: (batch,) of dB in to dB out above the threshold.
    """
    power = _blocks(audio.abs().amax(1, keepdim=True).square())
    decay = _SMOOTHING**_BLOCK
    kernel = (1 - decay) * decay ** torch.arange(95, -1, -1, device=audio.device, dtype=torch.float32)
    power = torch.nn.functional.conv1d(torch.nn.functional.pad(power, (95, 0)), kernel[None, None])
    level = power.clamp(min=1e-10).sqrt()
    over = level / (level.amax(-1, keepdim=True) * thresholds[:, None, None])
    return audio * _samples(over.clamp(min=1).pow(1 / ratios[:, None, None] - 1), audio.shape[-1])


def distort(audio: torch.Tensor, drives: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Soft clipping (tanh) blended with the clean signal at the same level; silence stays as it is.

    Args:
        audio: (batch, channels, samples).
        drives: (batch,) factors before the clipping, relative to three times the RMS.
        shares: (batch,) of the clipped signal in the result, 0 … 1.
    """
    level = rms(audio)
    driven = torch.tanh(audio * (drives / (3 * level).clamp(min=1e-5))[:, None, None])
    gain = shares * level / rms(driven).clamp(min=1e-9)
    heard = (level * 3 > 1e-5).float()
    return audio * (1 - shares * heard)[:, None, None] + driven * (gain * heard)[:, None, None]


def double(
    audio: torch.Tensor, delays: torch.Tensor, hertz: torch.Tensor, phases: torch.Tensor, gains: torch.Tensor, rate: int
) -> torch.Tensor:
    """The same line sung again: copies with slowly wandering delays, one to each side.

    Args:
        audio: (batch, channels, samples).
        delays: (batch, 2) in seconds, of the left and the right copy.
        hertz: (batch, 2) at which they wander by 2 ms.
        phases: (batch, 2) in turns.
        gains: (batch,) of the copies.
        rate: Sample rate in Hz.

    Returns:
        (batch, 2, samples).
    """
    samples = audio.shape[-1]
    voice = audio.mean(1)
    number = torch.arange(samples, device=audio.device)
    turns = number.float() / rate * hertz[..., None] + phases[..., None]
    delay = (delays[..., None] + _WANDER * torch.sin(2 * np.pi * turns)) * rate
    late = delay.ceil()
    before = int(delays.max() * rate + _WANDER * rate) + 2
    voice = torch.nn.functional.pad(voice, (before, 1))[:, None].expand(-1, 2, -1)
    index = number + before - late.long()
    copies = torch.lerp(voice.gather(-1, index), voice[..., 1:].gather(-1, index), late - delay)
    return audio + copies * gains[:, None, None]


def through(
    audio: torch.Tensor,
    magnitudes: torch.Tensor,
    echoes: torch.Tensor | None = None,
    darkness: torch.Tensor | None = None,
) -> torch.Tensor:
    """Equaliser and echoes in one pass through the spectrum.

    Args:
        audio: (batch, channels, samples).
        magnitudes: (batch, points) of the equaliser, without change of phase, from 0 to half the rate.
        echoes: (batch, channels, taps) added to the dry signal; two channels make mono stereo.
        darkness: (batch, points): magnitudes of the echoes.

    Returns:
        (batch, channels of echoes or audio, samples).
    """
    samples = audio.shape[-1]
    size = fft.next_fast_len(samples + (1024 if echoes is None else echoes.shape[-1]), real=True)
    size += size % 2
    spectrum = torch.fft.rfft(audio, size)
    if echoes is not None:
        response = torch.fft.rfft(echoes, size)
        if darkness is not None:
            response *= _between(darkness, size)
        spectrum = torch.addcmul(spectrum.expand_as(response), spectrum, response)
    return torch.fft.irfft(spectrum * _between(magnitudes, size), size)[..., :samples]


def bells(hertz: torch.Tensor, gains: torch.Tensor, widths: torch.Tensor, rate: int) -> torch.Tensor:
    """The magnitude response of peaking equalisers in series (RBJ audio EQ cookbook, peakingEQ).

    Args:
        hertz: (batch, bells) of the centres.
        gains: (batch, bells) at the centres, in dB; 0 leaves all as it is.
        widths: (batch, bells), the cookbook's Q.
        rate: Sample rate in Hz.

    Returns:
        (batch, points) from 0 to half the rate.
    """
    centre = 2 * np.pi * hertz[..., None] / rate
    amplitude = 10 ** (gains[..., None] / 40)
    alpha = torch.sin(centre) / (2 * widths[..., None])
    unit = torch.polar(torch.ones(_POINTS), -torch.linspace(0, np.pi, _POINTS)).to(hertz.device)
    middle = -2 * torch.cos(centre) * unit
    above = 1 + alpha * amplitude + middle + (1 - alpha * amplitude) * unit**2
    below = 1 + alpha / amplitude + middle + (1 - alpha / amplitude) * unit**2
    return (above.abs() / below.abs()).prod(-2)


def rooms(
    noises: torch.Tensor, decays: torch.Tensor, cutoffs: torch.Tensor, delays: torch.Tensor, levels: torch.Tensor,
    rate: int,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Reverberations: exponentially decaying noise of energy one, after a pause, darker than what it answers.

    Args:
        noises: (batch, channels) numbers below `ROOMS`; another for each channel makes it wide.
        decays: (batch,) seconds to −60 dB.
        cutoffs: (batch,) Hz of a lowpass of first order.
        delays: (batch,) seconds of pause, up to `ROOM_DELAY`.
        levels: (batch,) amplitude factors to the dry signal.
        rate: Sample rate in Hz.

    Returns:
        Echoes (batch, channels, taps) and their magnitudes (batch, points), as `through` takes them.
    """
    taps = int((ROOM_SECONDS + ROOM_DELAY) * rate)
    after = torch.arange(taps, device=decays.device).float() / rate - delays[:, None]
    decays = decays[:, None]
    envelope = torch.exp(-6.9 * after / decays) * ((after >= 0) & (after < decays.clamp(max=ROOM_SECONDS)))
    echoes = _noises(taps, str(decays.device))[noises] * envelope[:, None]
    # The bilinear lowpass: |H|² = 1 / (1 + (tan ω/2 / tan ω_c/2)²).
    half = torch.linspace(0, np.pi / 2 * (1 - 1e-6), _POINTS, device=decays.device)
    power = 1 / (1 + (torch.tan(half) / torch.tan(np.pi * cutoffs[:, None] / rate)).square())
    energy = echoes.square().sum(-1, keepdim=True) * power.mean(-1)[:, None, None]
    return echoes * (levels[:, None, None] / energy.sqrt().clamp(min=1e-9)), power.sqrt()


def sides(places: torch.Tensor, taps: torch.Tensor, levels: torch.Tensor, length: int) -> torch.Tensor:
    """Pseudo-stereo for a mono backing: random echoes of opposite sign on the two sides.

    Args:
        places: (batch, echoes) in samples, below `length`.
        taps: (batch, echoes) amplitudes.
        levels: (batch,) factors.
        length: Samples of the result.

    Returns:
        Echoes (batch, 2, length), as `through` takes them.
    """
    side = taps.new_zeros(len(taps), length).scatter_(1, places, taps) * levels[:, None]
    return torch.stack([side, -side], 1)


def maximising_gain(mixture: torch.Tensor, smooth: torch.Tensor, ceilings: torch.Tensor, rate: int) -> torch.Tensor:
    """The gain over time by which a loudness maximiser would hold mixtures down.

    Multiplied onto every stem it keeps their sum equal to the maximised mixture.

    Args:
        mixture: (batch, channels, samples).
        smooth: (batch,) seconds over which peaks are smoothed either way (Hann).
        ceilings: (batch,) as a factor to each item's highest envelope.
        rate: Sample rate in Hz.

    Returns:
        (batch, 1, samples).
    """
    peaks = _blocks(mixture.abs().amax(1, keepdim=True))
    half = smooth * rate / _BLOCK
    reach = int(half.max()) + 1
    away = torch.arange(-reach, reach + 1, device=mixture.device)
    window = torch.cos(np.pi / 2 * (away / half[:, None]).clamp(-1, 1)).square()
    window = window / window.sum(-1, keepdim=True)
    envelope = torch.nn.functional.conv1d(peaks.transpose(0, 1), window[:, None], padding=reach, groups=len(peaks))[0]
    ceiling = envelope.amax(-1, keepdim=True).clamp(min=1e-6) * ceilings[:, None]
    return _samples(1 / (envelope / ceiling).clamp(min=1)[:, None], mixture.shape[-1])


def rms(audio: torch.Tensor) -> torch.Tensor:
    """Root mean square of each item, over all channels and samples.

    Args:
        audio: (batch, channels, samples).

    Returns:
        (batch,).
    """
    return audio.square().mean((-2, -1)).sqrt()


def level(audio: torch.Tensor, rate: int) -> torch.Tensor:
    """RMS of each item over the louder half of its blocks of 50 ms, since pauses are not quiet singing.

    Args:
        audio: (batch, channels, samples).
        rate: Sample rate in Hz.

    Returns:
        (batch,); 0 below 1e-5, or where there is less than a block.
    """
    size = max(1, rate // 20)
    blocks = audio.shape[-1] // size
    if not blocks:
        return audio.new_zeros(len(audio))
    power = audio[..., : blocks * size].unflatten(-1, (blocks, size)).square().mean((1, 3))
    louder = power.topk(blocks - blocks // 2, dim=-1).values.mean(-1).sqrt()
    return torch.where(louder > 1e-5, louder, 0)


def _blocks(envelope: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.avg_pool1d(envelope, _BLOCK, ceil_mode=True)


def _samples(blocks: torch.Tensor, samples: int) -> torch.Tensor:
    """Values of blocks, in their middles, as values of samples."""
    return torch.nn.functional.interpolate(blocks, size=blocks.shape[-1] * _BLOCK, mode="linear")[..., :samples]


def _between(response: torch.Tensor, size: int) -> torch.Tensor:
    """A response (batch, points) at the bins of a transform of `size` samples, (batch, 1, bins)."""
    return torch.nn.functional.interpolate(response[:, None], size=size // 2 + 1, mode="linear", align_corners=True)


@functools.lru_cache(maxsize=4)
def _noises(taps: int, device: str) -> torch.Tensor:
    """The noises that all reverberations are made of, (ROOMS, taps)."""
    noise = np.random.default_rng(0).standard_normal((ROOMS, taps), dtype=np.float32)
    return torch.from_numpy(noise).to(device)
