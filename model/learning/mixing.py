"""Random track mixing: training examples from stems of different songs (Uhlich et al., ICASSP 2017).

What is done to an example is drawn first, as plain numbers (`Treatment`, `Balance`), by whoever reads its stems. It is
done later, to a complete batch, on the device of the network (`mixed`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from model.learning import augment
from model.learning.augment import decibels
from model.preset import MixingSettings

MARGIN = 4  # samples that a resampling looks at beyond the last


@dataclass(frozen=True)
class Treatment:
    """What is done to a stem on its way into a mixture; None is what is not done to it.

    speed: factor. compression: (threshold against the highest level in dB, ratio). distortion: (drive in dB, share).
    doubling: (two delays in s, two rates in Hz, two phases in turns, level in dB). bells: (Hz, dB, Q) each. room: (two
    noises, decay in s, cutoff in Hz, delay in s, level in dB). sides: (places in s, amplitudes, factor). gains: of left
    and right. swapped: left for right.
    """

    speed: float = 1.0
    compression: tuple[float, float] | None = None
    distortion: tuple[float, float] | None = None
    doubling: tuple[float, ...] | None = None
    bells: tuple[tuple[float, float, float], ...] = ()
    room: tuple[float, ...] | None = None
    sides: tuple[tuple[float, ...], tuple[float, ...], float] | None = None
    gains: tuple[float, float] = (1.0, 1.0)
    swapped: bool = False


@dataclass(frozen=True)
class Balance:
    """The levels of an example's stems. `maximiser` is (smoothing in seconds, ceiling in dB), or None.

    `without` names what is left out: "vocals", "others" or nothing. `loudness_db` is of the mixture's peak.
    """

    mono: bool
    part_db: tuple[float, ...]
    vocal_db: float
    without: str
    maximiser: tuple[float, float] | None
    loudness_db: float


@dataclass(frozen=True)
class Source:
    """A patch (channels, samples) of the stem with this number, at its original speed, and what is done to it.

    With `against_db` it is added to what the stem has already, at this level against it.
    """

    audio: torch.Tensor
    stem: int
    treatment: Treatment
    against_db: float | None = None


@dataclass(frozen=True)
class Parts:
    """What an example is made of: the sources of its stems, in order, and their balance."""

    sources: tuple[Source, ...]
    balance: Balance


def voice_treatment(settings: MixingSettings, random: np.random.Generator, rate: int) -> Treatment:
    """Draw how a vocal stem is processed to sit in a mix.

    Args:
        settings: The probability of each change.
        random: Where the draws come from; it advances.
        rate: Sample rate in Hz, which bounds the frequencies of filters.
    """
    chosen = Treatment()
    if random.random() < settings.compress:
        chosen = replace(chosen, compression=(_between(random, -24, -6), _between(random, 1.5, 5)))
    if random.random() < settings.equalise:
        chosen = replace(chosen, bells=_bells(random, rate, 6.0))
    if random.random() < settings.distort_voice:
        chosen = replace(chosen, distortion=(_between(random, 0, 18), _between(random, 0.2, 1)))
    if random.random() < settings.double:
        ranges = [(0.008, 0.03)] * 2 + [(0.1, 0.7)] * 2 + [(0, 1)] * 2 + [(-14, -3)]
        chosen = replace(chosen, doubling=tuple(_between(random, *limits) for limits in ranges))
    if random.random() < settings.reverberate:
        noises = random.choice(augment.ROOMS, size=2, replace=False)
        ranges = [(0.3, 2.2), (2000, min(9000, 0.45 * rate)), (0, augment.ROOM_DELAY), (-20, -5)]
        chosen = replace(chosen, room=(*map(float, noises), *(_between(random, *limits) for limits in ranges)))
    # Lead vocals sit in the middle; let some stand aside.
    position = float(random.normal(0, 0.08)) if random.random() < 0.8 else _between(random, -0.7, 0.7)
    position = float(np.clip(position, -1, 1))
    return replace(chosen, gains=(min(1.0, 1.0 - position), min(1.0, 1.0 + position)))


def backing_treatment(settings: MixingSettings, random: np.random.Generator, rate: int, channels: int) -> Treatment:
    """Draw how a backing is changed: equalised, distorted, widened if mono, its channels swapped half the time.

    Args:
        settings: The probability of each change.
        random: Where the draws come from; it advances.
        rate: Sample rate in Hz, which bounds the frequencies of filters.
        channels: Channels of the backing's patch.
    """
    chosen = Treatment()
    if random.random() < settings.equalise:
        chosen = replace(chosen, bells=_bells(random, rate, 4.0))
    if random.random() < settings.distort:
        chosen = replace(chosen, distortion=(_between(random, 0, 24), _between(random, 0.2, 1)))
    if channels == 1 and random.random() < settings.widen:
        places, taps = random.uniform(0.002, 0.03, size=6), random.uniform(-1, 1, size=6)
        chosen = replace(chosen, sides=(tuple(map(float, places)), tuple(map(float, taps)), _between(random, 0.1, 0.6)))
    return replace(chosen, swapped=bool(random.random() < 0.5))


def balance(settings: MixingSettings, random: np.random.Generator, stems: int) -> Balance:
    """Draw how the vocals are set against the other stems, and how loud the mixture is.

    Args:
        settings: Probabilities, and ranges of levels in dB.
        random: Where the draws come from; it advances.
        stems: How many stems the example has, the vocals first.
    """
    chance = random.random()
    without = "vocals" if chance < settings.without_vocals else ""
    if not without and chance < settings.without_vocals + settings.without_backing:
        without = "others"
    maximiser = (_between(random, 0.005, 0.05), _between(random, -8, -2))
    return Balance(
        mono=bool(random.random() < settings.mono),
        part_db=tuple(_between(random, *settings.part_db) for _ in range(stems - 1)),
        vocal_db=_between(random, *settings.vocal_db),
        without=without,
        maximiser=maximiser if random.random() < settings.maximise else None,
        loudness_db=_between(random, -12, 0),
    )


def mixed(examples: Sequence[Parts], stems: int, samples: int, rate: int, device: str = "cpu") -> torch.Tensor:
    """The stems of a batch of examples, which add up to their mixtures.

    Args:
        examples: Their parts.
        stems: How many stems an example has, the vocals first.
        samples: Length of the stems.
        rate: Sample rate in Hz.
        device: Where it is done.

    Returns:
        float32 (batch, stems, 2, samples), on the device.
    """
    out = torch.zeros(len(examples), stems, 2, samples, device=device)
    places = [(number, source) for number, parts in enumerate(examples) for source in parts.sources]
    groups: dict[tuple[bool, int, bool], list[tuple[int, Source]]] = {}
    for number, source in places:
        mono = examples[number].balance.mono
        channels = 1 if mono else source.audio.shape[0]
        groups.setdefault((mono, channels, source.treatment.doubling is not None), []).append((number, source))
    later = []
    for (mono, channels, _), members in groups.items():
        audio = _stacked([source.audio for _, source in members], channels, device)
        treated = _treated(audio, [source.treatment for _, source in members], samples, rate, mono=mono)
        for (number, source), signal in zip(members, treated, strict=True):
            if source.against_db is None:
                out[number, source.stem] += signal
            else:
                later.append((number, source, signal))
    for number, source, signal in later:
        level, other = augment.rms(signal[None])[0], augment.rms(out[number, source.stem][None])[0]
        gain = torch.where(level > 1e-6, other / level, 1.0) * decibels(source.against_db or 0.0)
        out[number, source.stem].addcmul_(signal, gain)
    return loud(balanced(out, [parts.balance for parts in examples], lambda audio: augment.level(audio, rate)),
                [parts.balance for parts in examples], rate)  # fmt: skip


def balanced(
    stems: torch.Tensor, balances: Sequence[Balance], level: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Set the vocals, the first stem, against the sum of the others, and those against each other.

    Args:
        stems: Waveforms or spectra (batch, stems, channels, …).
        balances: One per example.
        level: What gives the levels (batch,) of (batch, channels, …).

    Returns:
        Stems of the same shape.
    """
    extra = (1,) * (stems.ndim - 2)
    count = stems.shape[1]
    if count > 2:  # the parts of a backing at one level, each then turned down by chance
        levels = torch.stack([level(stems[:, part]) for part in range(1, count)], 1)
        gains = levels.new_tensor([[decibels(value) for value in each.part_db] for each in balances])
        gains = torch.where(levels > 0, gains / levels.clamp(min=1e-12), 1.0)
        stems = torch.cat([stems[:, :1], stems[:, 1:] * gains.view(*gains.shape, *extra)], 1)
    vocals, others = level(stems[:, 0]), level(stems[:, 1:].sum(1))
    ratios = vocals.new_tensor([decibels(each.vocal_db) for each in balances])
    silent = vocals.new_tensor([each.without == "vocals" for each in balances]).bool() | (vocals == 0)
    alone = vocals.new_tensor([each.without == "others" for each in balances]).bool() | (others == 0)
    alone &= ~silent
    first = torch.where(silent, 0.0, torch.where(alone, 1.0, ratios * others / vocals.clamp(min=1e-12)))
    rest = torch.where(alone, 0.0, 1.0).to(first)
    gains = torch.cat([first[:, None], rest[:, None].expand(-1, count - 1)], 1)
    return stems * gains.view(*gains.shape, *extra)


def loud(stems: torch.Tensor, balances: Sequence[Balance], rate: int) -> torch.Tensor:
    """Scale mixtures to the loudness of their balances, maximised where these say so.

    Args:
        stems: Waveforms (batch, stems, channels, samples); changed in place where maximised.
        balances: One per example.
        rate: Sample rate in Hz.

    Returns:
        Stems of the same shape.
    """
    maximised = [number for number, each in enumerate(balances) if each.maximiser]
    if maximised:
        smooth, ceilings = stems.new_tensor([balances[number].maximiser for number in maximised]).unbind(1)
        chosen = stems[maximised]
        gain = augment.maximising_gain(chosen.sum(1), smooth, 10 ** (ceilings / 20), rate)
        stems[maximised] = chosen * gain[:, None]
    peaks = stems.sum(1).abs().amax((1, 2)).clamp(min=1e-6)
    gains = stems.new_tensor([decibels(each.loudness_db) for each in balances]) / peaks
    return stems * gains[:, None, None, None]


def _treated(audio: torch.Tensor, treatments: list[Treatment], samples: int, rate: int, *, mono: bool) -> torch.Tensor:
    """Stems (batch, channels, longer than samples) as their treatments say: (batch, 2, samples), the same if `mono`."""
    number = audio.new_tensor

    def some(name: str) -> list[int]:
        return [index for index, treatment in enumerate(treatments) if getattr(treatment, name)]

    audio = augment.at_speed(audio, number([each.speed for each in treatments]), samples)
    if rows := some("compression"):
        decibel, ratios = number([treatments[row].compression for row in rows]).unbind(1)
        audio[rows] = augment.compress(audio[rows], 10 ** (decibel / 20), ratios)
    if rows := some("distortion"):
        decibel, shares = number([treatments[row].distortion for row in rows]).unbind(1)
        audio[rows] = augment.distort(audio[rows], 10 ** (decibel / 20), shares)
    if rows := some("doubling"):
        drawn = number([treatments[row].doubling for row in rows])
        delays, hertz, phases, gains = drawn[:, :2], drawn[:, 2:4], drawn[:, 4:6], 10 ** (drawn[:, 6] / 20)
        copied = augment.double(audio[rows], delays, hertz, phases, gains, rate)
        if mono:
            audio[rows] = copied.mean(1, keepdim=True)
        else:
            audio = audio.expand(-1, 2, -1).contiguous() if audio.shape[1] == 1 else audio
            audio[rows] = copied
    out = audio.expand(-1, 1 if mono else 2, -1).clone()
    _through_rows(audio, out, treatments, rate, mono=mono)
    if mono:
        return out.expand(-1, 2, -1)
    out *= number([each.gains for each in treatments])[..., None]
    if rows := some("swapped"):
        out[rows] = out[rows].flip(1)
    return out


def _through_rows(
    audio: torch.Tensor, out: torch.Tensor, treatments: list[Treatment], rate: int, *, mono: bool
) -> None:
    """Write what equaliser, reverberation and widening make of (batch, channels, samples) into `out`."""
    kinds: dict[str, list[int]] = {"room": [], "sides": [], "bells": []}
    for row, treatment in enumerate(treatments):
        kind = "room" if treatment.room else "sides" if treatment.sides and not mono else "bells"
        if kind != "bells" or treatment.bells:
            kinds[kind].append(row)
    for kind, rows in kinds.items():
        if not rows:
            continue
        chosen = [treatments[row] for row in rows]
        # Of too few bells the others are flat.
        flat = [[*each.bells, *[(1000.0, 0.0, 1.0)] * (3 - len(each.bells))] for each in chosen]
        hertz, gains, widths = audio.new_tensor(flat).unbind(-1)
        magnitudes = augment.bells(hertz, gains, widths, rate)
        echoes = darkness = None
        if kind == "room":
            drawn = audio.new_tensor([each.room for each in chosen])
            noises = drawn[:, : 1 if mono else 2].long()
            levels = 10 ** (drawn[:, 5] / 20)
            echoes, darkness = augment.rooms(noises, drawn[:, 2], drawn[:, 3], drawn[:, 4], levels, rate)
        elif kind == "sides":
            places, taps, factors = (
                audio.new_tensor(column) for column in zip(*(each.sides for each in chosen if each.sides), strict=True)
            )
            echoes = augment.sides((places * rate).long(), taps, factors, int(0.03 * rate) + 1)
        out[rows] = augment.through(audio[rows], magnitudes, echoes, darkness)


def _stacked(signals: list[torch.Tensor], channels: int, device: str) -> torch.Tensor:
    """Signals of one number of channels, or their means, in one tensor with silence behind the shorter ones."""
    longest = max(signal.shape[-1] for signal in signals) + MARGIN
    stacked = torch.zeros(len(signals), channels, longest, pin_memory=device.startswith("cuda"))
    for row, signal in zip(stacked, signals, strict=True):
        row[:, : signal.shape[-1]] = signal if len(signal) == channels else signal.mean(0, keepdim=True)
    return stacked.to(device, non_blocking=True)


def _bells(random: np.random.Generator, rate: int, most_db: float) -> tuple[tuple[float, float, float], ...]:
    """Two or three peaking equalisers."""
    top = np.log(min(14000.0, 0.45 * rate))
    return tuple(
        (
            float(np.exp(random.uniform(np.log(80.0), top))),
            _between(random, -most_db, most_db),
            _between(random, 0.4, 1.5),
        )
        for _ in range(int(random.integers(2, 4)))
    )


def _between(random: np.random.Generator, low: float, high: float) -> float:
    return float(random.uniform(low, high))
