"""Calibrations fitted: lines from what the masks said to the scores that references gave."""

from dataclasses import dataclass, replace

import numpy as np

from model.scoring.scores import score
from model.separation.evidence import Evidence
from model.separation.prediction import (
    LEVEL,
    VOCALS,
    Calibration,
    StemFit,
    presence_features,
    track_features,
    window_features,
    window_presence_features,
)
from model.separation.stream import separate_with_evidence

LEAST_SONGS = 8  # fewer say nothing about the error
_RIDGE = 1.0  # of standardised features, in songs: pulls weights towards zero where songs are few
_WINDOWS_RIDGE = 10.0
_STEPS = 50
_HUBER = 1.0  # dB
_SCORES = (-15.0, 30.0)  # dB; scores beyond are clipped, so that a single song does not tilt the line
_FAINT = -30.0  # dB below the mixture: a reference that is fainter is noise between phrases, not a stem to be found
# dB. Catalogs hold songs at the balance that somebody gave them. A remix of 12 dB teaches the line what doubt looks
# like where separation fails, but says little of how far predictions miss in a catalog: errors are weighed by the
# chance of such a balance, as in conformal prediction under covariate shift (Tibshirani et al. 2019).
_BALANCE = 2.0


@dataclass(frozen=True)
class Observation:
    """One separated mixture whose stems are known: its sums, its true cSDR per stem, and the SDR of every window.

    `song` is what all mixtures of the same stems share; `evidence` has `stems` in this order. `windows` lacks the stems
    that are silent, and is NaN where one is silent or faint; `scores` also lacks those that are so half of the time.
    `gain` is how far the first stem was moved from the song's original balance, in dB.
    """

    song: str
    stems: tuple[str, ...]
    evidence: Evidence
    scores: dict[str, float]
    windows: dict[str, np.ndarray]
    gain: float = 0.0


def observe(
    separator, song: str, references: dict[str, np.ndarray], rate: int, gain: float = 0.0, *,
    faint: float | None = _FAINT,
) -> Observation:  # fmt: skip
    """Separate a mixture whose stems are known, and score every stem alone against its reference.

    Args:
        separator: A `Separator`, or what has its `stems` and `stream`.
        song: What all mixtures of the same stems share.
        references: The stems at the song's original balance, (channels, samples) each.
        rate: Samples per second.
        gain: Of the first stem, in dB.
        faint: dB against the mixture below which a window of a reference says nothing; None keeps every score.
    """
    lead = next(iter(references))
    references = {**references, lead: references[lead] * np.float32(10 ** (gain / 20))}
    mixture = np.add.reduce(np.stack(list(references.values())), axis=0, dtype=np.float32)
    estimates, evidence = separate_with_evidence(separator, mixture, rate)
    scores, windows = {}, {}
    for stem in separator.stems:
        reference = references.get(stem)
        if reference is None or not reference.any():
            continue
        scored = score({stem: reference}, {stem: estimates[stem]}, rate, engine="sdr")
        value = scored.stems[stem].sdr
        if value is not None and np.isfinite(value):
            windows[stem] = np.array(scored.windows[stem][0], np.float64)
            sounds = np.ones(len(windows[stem]), bool) if faint is None else _sounds(reference, mixture, rate, faint)
            windows[stem][~sounds] = np.nan
            if sounds.mean() > 0.5:
                scores[stem] = float(value)
    return Observation(song, separator.stems, evidence, scores, windows, gain)


def _sounds(reference: np.ndarray, mixture: np.ndarray, rate: int, faint: float) -> np.ndarray:
    """Per window of a second: is the reference within `faint` dB of the mixture?"""
    count = reference.shape[1] // rate
    energy, mixture_energy = (
        np.square(signal[:, : count * rate], dtype=np.float64).reshape(len(signal), count, rate).sum(axis=(0, 2))
        for signal in (reference, mixture)
    )
    return energy > mixture_energy * 10 ** (faint / 10)


def fit(observations: list[Observation]) -> Calibration:
    """Fit a line per stem, with the error it has on songs it was not fitted to.

    The interval lies between quantiles of the errors under cross-validation, each song left out in turn: it makes no
    assumption on their distribution (the jackknife of Barber et al., "Predictive inference with the jackknife+", 2021,
    in its plain form, weighed as `_BALANCE` says). Stems with fewer than `LEAST_SONGS` songs get none.

    Args:
        observations: Mixtures with known stems, of which those without `vocals` teach what music without a voice is.
    """
    stems = {}
    for stem in dict.fromkeys(name for seen in observations for name in seen.stems):
        # In a mixture of a single stem, its score says nothing about how stems are told apart.
        fitted = _fit_stem([seen for seen in observations if stem in seen.scores and len(seen.scores) > 1], stem)
        if fitted is not None:
            stems[stem] = fitted
    presence, window_presence = _fit_presence(observations)
    return Calibration(stems, presence, window_presence)


def carried_over(calibration: Calibration, pairs: list[tuple[Observation, Observation]]) -> Calibration:
    """A network's calibration for another one that has learned from the same songs.

    A network is surer of songs that it has learned from than of a catalog's, so a calibration is fitted on others. If
    a new network has learned from all songs there are, only the step between the two networks can be seen on them. The
    new lines are fitted to what the old ones predict, plus the difference between the two measured scores: what the old
    calibration knows of unseen songs stays in it. Its interval and error stay too, since songs that both networks know
    say nothing of them; judge them on songs that neither knows.

    Args:
        calibration: The old network's.
        pairs: The same mixtures as the old and as the new network separated them.

    Raises:
        ValueError: There are fewer than `LEAST_SONGS` songs with a stem of the calibration.
    """
    stems = {stem: _carried_stem(fitted, stem, pairs) for stem, fitted in calibration.stems.items()}
    sung = [pair for pair in pairs if VOCALS in pair[1].stems and all(len(seen.evidence.sums) for seen in pair)]
    if not sung:
        return replace(calibration, stems=stems)
    odds = []
    for weights, features in (
        (calibration.presence, lambda *of: presence_features(*of)[None]),
        (calibration.window_presence, window_presence_features),
    ):
        before, after = (
            np.concatenate([features(seen.evidence, seen.stems.index(VOCALS)) for seen in network])
            for network in zip(*sung, strict=True)
        )
        odds.append(weights and _carried_odds(weights, before, after))
    return Calibration(stems, *odds)


def _carried_stem(fitted: StemFit, stem: str, pairs: list[tuple[Observation, Observation]]) -> StemFit:
    songs, tracks, windows = [], [], []  # of both: features of the new network, and what its line is to give there
    for old, new in pairs:
        if not (stem in old.scores and stem in new.scores and len(new.scores) > 1):
            continue
        before, after = (track_features(seen.evidence, seen.stems.index(stem)) for seen in (old, new))
        if before is None or after is None:
            continue
        songs.append(new.song)
        gained = np.subtract(*(np.clip(seen.scores[stem], *_SCORES) for seen in (new, old)))
        tracks.append((after, _at(fitted.weights, before) + gained))
        known = np.isfinite(old.windows[stem]) & np.isfinite(new.windows[stem])
        known &= np.arange(len(known)) < min(len(seen.evidence.sums) for seen in (old, new))
        places = np.flatnonzero(known)
        before, after = (window_features(seen.evidence, seen.stems.index(stem))[places] for seen in (old, new))
        gained = np.subtract(*(np.clip(seen.windows[stem][places], *_SCORES) for seen in (new, old)))
        windows.append((after, _at(fitted.window_weights, before) + gained))
    _, of_song, mixtures = np.unique(songs, return_inverse=True, return_counts=True)
    if len(mixtures) < LEAST_SONGS:
        raise ValueError(f"{len(mixtures)} songs have {stem}, {LEAST_SONGS} are needed to carry a calibration over")
    features, targets = (np.array(column) for column in zip(*tracks, strict=True))
    line = _line(features, targets, _RIDGE, 1 / mixtures[of_song])
    features, targets = (np.concatenate(column) for column in zip(*windows, strict=True))
    window_line = _line(features, targets, _WINDOWS_RIDGE)
    return replace(fitted, weights=tuple(line.tolist()), window_weights=tuple(window_line.tolist()))


def _carried_odds(weights: tuple[float, ...], before: np.ndarray, after: np.ndarray) -> tuple[float, ...]:
    """A line through the logarithms of the odds that the old weights give; beyond 1 in 3000 they are clipped."""
    return tuple(_line(after, np.clip(_at(weights, before), -8.0, 8.0), _RIDGE).tolist())


def _at(weights: tuple[float, ...], features: np.ndarray) -> np.ndarray:
    """The values of a line, its constant first, at features (…, features)."""
    line = np.array(weights)
    return line[0] + features @ line[1:]


def _fit_stem(observations: list[Observation], stem: str) -> StemFit | None:
    rows = [(seen, track_features(seen.evidence, seen.stems.index(stem))) for seen in observations]
    rows = [(seen, features) for seen, features in rows if features is not None]
    songs, of_song, mixtures = np.unique([seen.song for seen, _ in rows], return_inverse=True, return_counts=True)
    if len(songs) < LEAST_SONGS:
        return None
    # Mixtures of one song resemble each other, so each song counts once, however many mixtures were made of it.
    shares = 1 / mixtures[of_song]
    features = np.array([row for _, row in rows])
    scores = np.clip([seen.scores[stem] for seen, _ in rows], *_SCORES)
    errors = np.zeros(len(scores))
    for song in range(len(songs)):
        out = of_song == song
        line = _line(features[~out], scores[~out], _RIDGE, shares[~out])
        errors[out] = scores[out] - line[0] - features[out] @ line[1:]
    likely = shares * np.exp(-np.square([seen.gain / _BALANCE for seen, _ in rows]) / 2)
    low, high = _quantiles(errors, likely, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return StemFit(
        weights=tuple(_line(features, scores, _RIDGE, shares).tolist()),
        window_weights=_window_line([seen for seen, _ in rows], stem),
        low=float(low),
        high=float(high),
        error=float(np.average(np.abs(errors), weights=likely)),
        songs=len(songs),
    )


def _quantiles(values: np.ndarray, weights: np.ndarray, shares: tuple[float, ...]) -> np.ndarray:
    """The values below which these shares of the weight lie, interpolated between neighbours."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) - weights[order] / 2
    return np.interp(shares, reached / weights.sum(), values[order])


def _window_line(observations: list[Observation], stem: str) -> tuple[float, ...]:
    features, scores = [], []
    for seen in observations:
        count = min(len(seen.windows[stem]), len(seen.evidence.sums))
        known = np.isfinite(seen.windows[stem][:count])
        features.append(window_features(seen.evidence, seen.stems.index(stem))[:count][known])
        scores.append(np.clip(seen.windows[stem][:count][known], *_SCORES))
    return tuple(_line(np.concatenate(features), np.concatenate(scores), _WINDOWS_RIDGE).tolist())


def _line(features: np.ndarray, scores: np.ndarray, ridge: float, shares: np.ndarray | None = None) -> np.ndarray:
    """(constant, weight per feature), by ridge regression on standardised features with Huber's loss.

    Each row counts by its share, or all alike. Errors beyond `_HUBER` dB count by their size, not its square, so that a
    few songs on which the network is sure and wrong do not tilt the line for all others (Huber 1964; solved by iterated
    reweighting).
    """
    middle, spread = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-6)
    # A feature that did not vary while fitting (APART with a single view) must have no weight later.
    standard = np.where(features.std(axis=0) < 1e-3, 0.0, (features - middle) / spread)
    design = np.column_stack([np.ones(len(standard)), standard])
    pull = np.diag([0.0, *[ridge] * standard.shape[1]])
    shares = np.ones(len(scores)) if shares is None else shares
    weight = shares
    for _ in range(_STEPS):
        line = np.linalg.solve((design * weight[:, None]).T @ design + pull, design.T @ (weight * scores))
        weight = shares * _HUBER / np.maximum(np.abs(scores - design @ line), _HUBER)
    weights = line[1:] / spread
    return np.concatenate([[line[0] - middle @ weights], weights])


def _fit_presence(observations: list[Observation]) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Logistic weights for a track's and for a window's vocals; None where there is no music without a voice."""
    rows, there, window_rows, window_there = [], [], [], []
    for seen in observations:
        if VOCALS not in seen.stems or not len(seen.evidence.sums):
            continue
        index = seen.stems.index(VOCALS)
        if (VOCALS in seen.scores) == (VOCALS in seen.windows):  # else there is a voice, but hardly any
            rows.append(presence_features(seen.evidence, index))
            there.append(VOCALS in seen.scores)
        features = window_presence_features(seen.evidence, index)
        sung = np.zeros(len(features), bool)
        if VOCALS in seen.windows:
            known = np.isfinite(seen.windows[VOCALS][: len(features)])
            sung[: len(known)] = known
        window_rows.append(features)
        window_there.append(sung)
    if not 0 < sum(there) < len(there):
        return None, None
    track = _logistic(np.array(rows), np.array(there))
    return track, _logistic(np.concatenate(window_rows), np.concatenate(window_there))


def _logistic(features: np.ndarray, there: np.ndarray) -> tuple[float, ...]:
    """Logistic regression by Newton's method, slightly pulled to zero; both classes weigh the same."""
    spread = np.maximum(features.std(axis=0), 1e-6)
    middle = features.mean(axis=0)
    design = np.column_stack([np.ones(len(features)), (features - middle) / spread])
    share = there.mean()
    weight = np.where(there, 0.5 / share, 0.5 / (1 - share))
    line = np.zeros(design.shape[1])
    pull = np.diag([0.0, *[1.0] * features.shape[1]])
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(design @ line, -30, 30)))
        slope = design.T @ (weight * (there - chance)) - pull @ line
        bend = (design * (weight * chance * (1 - chance))[:, None]).T @ design + pull
        line = line + np.linalg.solve(bend + 1e-9 * np.eye(len(line)), slope)
    weights = line[1:] / spread
    return tuple([float(line[0] - middle @ weights), *weights.tolist()])
