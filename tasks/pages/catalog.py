"""What the catalog browser shows: a page of tracks, one track, and its sound; nothing outside OUT and the catalog."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from storage import runs
from storage.audio.excerpt import read_excerpt, wav
from storage.audio.reader import EXTENSIONS, probe
from storage.audio.tags import read_tags
from storage.errors import CatalogError, MetricsError, StorageError
from storage.files.layout import OutputLayout
from storage.files.location import is_url, local_file, location
from storage.results.browsing import CONTAINS, OPERATORS, PAGE, Search, TrackTable, window_scores
from storage.sources.catalog import stream_catalog
from tasks.pages.charts import line_chart
from tasks.pages.kept import kept_players
from tasks.pages.players import MIXTURE, Lane, Player
from tasks.pages.render import clock, number, quoted, render
from tasks.pages.spectrogram import levels, marks, picture

CHUNK_SECONDS = 10.0
_PICTURE_SECONDS = 1200.0  # of a track's beginning; more would take too long to draw
_SHOWN = ("path", "model_id", "status", "duration_s", "sdr", "predicted_sdr", "loudness_lufs", "activity",
          "finished_at")  # fmt: skip
_KEYS = ("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B")


@dataclass(frozen=True)
class Place:
    """A track of a model: what the browser's URLs name."""

    track_id: str
    model_id: str

    @property
    def query(self) -> str:
        return f"id={quoted(self.track_id)}&model={quoted(self.model_id)}"


class CatalogFiles:
    """Which files the browser may read: those under OUT, and tracks of the catalogs that were separated into it."""

    def __init__(self, out: OutputLayout) -> None:
        self.out = out
        self._roots: list[Path] = []
        self._manifests: list[str] = []
        self._listed: set[str] | None = None
        for record in out.runs.glob("*.json"):
            parameters = runs.read(out, record.stem).get("parameters", {})
            source = parameters.get("source") or parameters.get("dataset")
            if not source or is_url(source):
                continue
            path = location(source)
            if path.is_dir() or path.suffix.lower() in EXTENSIONS:
                self._roots.append(path.resolve())
            else:
                self._manifests.append(source)

    def stem(self, stem_path: str) -> Path:
        """The file of a stem.

        Args:
            stem_path: Its path below OUT, as a row gives it.

        Raises:
            MetricsError: It does not lie under OUT, or is gone.
        """
        path = location(self.out.root) / stem_path
        if not is_url(path) and not path.resolve().is_relative_to(self.out.root.resolve()):
            raise MetricsError(f"{stem_path} does not lie under {self.out.root}")
        if not path.is_file():
            raise MetricsError(f"{path} no longer exists; separate the track again")
        return path

    def mixture(self, row: dict) -> Path | None:
        """The file that a row's track was separated from.

        Args:
            row: A row of `TrackTable`. Rows of older versions name no source; it is then sought in the run's catalogs.

        Returns:
            The file, None where it is gone or belongs to no catalog of this folder.
        """
        if row["source"]:
            return self.source(row["source"])
        guesses = [root / row["path"] if root.is_dir() else root for root in self._roots]
        files = [self.source(str(guess)) for guess in guesses if guess.name == Path(row["path"]).name]
        return next((file for file in files if file), None)

    def source(self, source: str | None) -> Path | None:
        """The file of a mixture, None where it is gone or belongs to no catalog of this folder.

        Args:
            source: File or URL that a row names; for a URL the answer is None.
        """
        if not source or is_url(source):
            return None
        path = location(source).resolve()
        if path.suffix.lower() not in EXTENSIONS or not path.is_file():
            return None
        if any(path == root or (root.is_dir() and path.is_relative_to(root)) for root in self._roots):
            return path
        return path if str(path) in self._from_manifests() else None

    def _from_manifests(self) -> set[str]:
        """The tracks of manifests and globs, listed once."""
        if self._listed is None:
            self._listed = set()
            for manifest in self._manifests:
                try:
                    self._listed |= {str(Path(track.source).resolve()) for track in stream_catalog(manifest)}
                except (StorageError, OSError):
                    continue
        return self._listed


def catalog_page(table: TrackTable, search: Search, sql: str = "") -> str:
    """The page of tracks that a search finds; a search that makes no sense is a sentence above an empty table.

    Args:
        table: The tracks.
        search: Filters, order and which page.
        sql: A SELECT over `tracks` that replaces the search; "" for none.

    Returns:
        The page as HTML.
    """
    answer, problem, result = None, None, None
    try:
        if sql:
            result = table.select(sql)
        else:
            answer = table.search(search)
    except MetricsError as error:
        problem = str(error)
    rows = answer.rows if answer else []
    total = answer.total if answer else 0
    shown = [name for name in _SHOWN if name in table.columns]
    extra = [one.column for one in search.filters if one.column in table.columns] + [search.order]
    shown += [name for name in dict.fromkeys(extra) if name not in shown and name in table.columns]
    if "tempo" in table.columns:
        shown.append("tempo")
    pages = max(1, -(-total // PAGE))
    return render(
        "catalog.html", name=str(table.out.root), made=table.made, search=search, sql=sql, rows=rows, total=total,
        columns=table.columns, shown=shown, pages=pages, page=min(max(1, search.page), pages), problem=problem,
        result=result, operators=[*OPERATORS, CONTAINS], count_all=table.count,
        queries=[Place(row["track_id"], row["model_id"]).query for row in rows],
    )  # fmt: skip


def track_page(table: TrackTable, files: CatalogFiles, place: Place) -> str:
    """The page of a track: its player, facts, history, scores by window and partners for a mash-up.

    Args:
        table: The tracks.
        files: Which files may be read.
        place: The track and model.

    Returns:
        The page as HTML.

    Raises:
        CatalogError: There is no such track.
        MetricsError: The metrics cannot be read.
    """
    row = table.track(place.track_id, place.model_id)
    if row is None:
        raise CatalogError(f"{place.track_id} has no row of {place.model_id} here")
    history = table.history(place.track_id)
    stems = _stems(row, history)
    source = files.mixture(row)
    windows = window_scores(table.out, row["run_id"], place.track_id, place.model_id)
    partners = [
        {
            **other,
            "query": Place(other["track_id"], other["model_id"]).query,
            "key": _key(other["tonic"], other["minor"]),
        }
        for other in table.partners(place.track_id)
    ]
    tags = read_tags(source).text if source else {}
    facts = [(name, _fact(value)) for name, value in row.items() if value is not None]
    return render(
        "track.html", name=row["path"], row=row, place=place, facts=facts, history=history, partners=partners,
        tags=sorted((name, "; ".join(values)) for name, values in tags.items()), stems=stems, has_source=bool(source),
        windows=_window_charts(windows), player=_player(row, stems, source is not None, place, files),
        key=_key(row.get("tonic"), row.get("minor")),
    )  # fmt: skip


def sound(table: TrackTable, files: CatalogFiles, place: Place, stem: str, start: float, seconds: float) -> bytes:
    """A stretch of a stem or of the mixture as WAV.

    Args:
        table: The tracks.
        files: Which files may be read.
        place: The track and model.
        stem: Name of the stem, or `MIXTURE`; a mixture that is not on this disk is the sum of its stems.
        start: Where the stretch begins, in seconds.
        seconds: How long it is; 60 at most.

    Returns:
        A 16-bit WAV file.

    Raises:
        CatalogError: There is no such track.
        MetricsError: The stem is not on this disk.
        AudioError: A file cannot be read.
    """
    paths = _paths(table, files, place, stem)
    parts = [read_excerpt(path, max(0.0, start), min(max(0.0, seconds), 60.0)) for path in paths]
    samples = min(part.shape[1] for part, _ in parts)
    return wav(np.add.reduce([part[:, :samples] for part, _ in parts]), parts[0][1])


def image(table: TrackTable, files: CatalogFiles, place: Place, stem: str) -> bytes:
    """A spectrogram of the first 20 minutes of a stem or of the mixture, as WebP.

    Args:
        table: The tracks.
        files: Which files may be read.
        place: The track and model.
        stem: Name of the stem, or `MIXTURE`; a mixture that is not on this disk is the sum of its stems.

    Returns:
        A WebP image, 128 pixels high and at most 1100 wide.

    Raises:
        CatalogError: There is no such track.
        MetricsError: The stem is not on this disk.
        AudioError: A file cannot be read.
    """
    paths = _paths(table, files, place, stem)
    parts = [read_excerpt(path, 0.0, _PICTURE_SECONDS) for path in paths]
    samples = min(part.shape[1] for part, _ in parts)
    audio = np.add.reduce([part[:, :samples] for part, _ in parts])
    return picture(levels(audio, parts[0][1], width=1100, rows=128))


def sound_file(table: TrackTable, files: CatalogFiles, place: Place, stem: str) -> Path:
    """The file of a stem or of the mixture.

    Args:
        table: The tracks.
        files: Which files may be read.
        place: The track and model.
        stem: Name of the stem, or `MIXTURE`.

    Raises:
        CatalogError: There is no such track.
        MetricsError: The stem or the mixture is not on this disk.
    """
    paths = _paths(table, files, place, stem)
    if len(paths) != 1:
        raise MetricsError("the mixture of this track is not on this disk")
    return paths[0]


def shortlist_manifest(table: TrackTable, track_ids: list[str]) -> str:
    """Tracks as a manifest for `unbraid separate`: the columns track_id and path.

    Args:
        table: The tracks.
        track_ids: Which ones, in this order; those that are unknown or without a source are left out.

    Returns:
        CSV with a header.
    """
    import csv

    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["track_id", "path"])
    writer.writerows([track_id, source] for track_id, source in table.sources(track_ids) if source)
    return text.getvalue()


def _paths(table: TrackTable, files: CatalogFiles, place: Place, stem: str) -> list[Path]:
    """The files whose sum is a stem: one, or all stems where the mixture is not on this disk."""
    row = table.track(place.track_id, place.model_id)
    if row is None:
        raise CatalogError(f"{place.track_id} has no row of {place.model_id} here")
    if stem == MIXTURE:
        source = files.mixture(row)
        if source is not None:
            return [source]
    stems = _stems(row, table.history(place.track_id))
    if stem == MIXTURE and stems:
        return [files.stem(path) for path in stems.values()]
    if stem not in stems:
        raise MetricsError(f"{place.track_id} has no {stem} on this disk")
    return [files.stem(stems[stem])]


def _stems(row: dict, history: list[dict]) -> dict[str, str]:
    """Stem name → path below OUT, as written by the row's run; the vocals first."""
    stems = {
        old["stem"]: old["stem_path"]
        for old in history
        if old["run_id"] == row["run_id"] and old["model_id"] == row["model_id"] and old["stem_path"]
    }
    return dict(sorted(stems.items(), key=lambda item: (item[0] != "vocals", item[0])))


def _player(row: dict, stems: dict[str, str], has_source: bool, place: Place, files: CatalogFiles) -> Player | None:
    """A player that fetches ten seconds at a time. Of a track without stems, what an evaluation kept of it, or None."""
    if not stems:
        return next(iter(kept_players(files.out.player(row["run_id"], row["track_id"]))), None)
    try:
        paths = [files.stem(path) for path in stems.values()]
        with local_file(paths[0]) as file:
            info = probe(file)
    except StorageError as error:
        return Player(row["path"], problem=str(error))
    names = ([MIXTURE] if has_source or len(stems) > 1 else []) + list(stems)
    lanes = [
        Lane(name, f"picture?{place.query}&stem={quoted(name)}", url=f"audio?{place.query}&stem={quoted(name)}")
        for name in names
    ]
    seconds = row["duration_s"] or info.duration or 0.0
    return Player(row["path"], lanes, seconds, marks(info.sample_rate, rows=128), rate=info.sample_rate,
                  chunk=CHUNK_SECONDS)  # fmt: skip


def _window_charts(rows: list[dict]) -> list:
    """SDR over time, predicted where no window was scored: one curve per stem."""
    column = "sdr" if any(row["sdr"] is not None for row in rows) else "predicted_sdr"
    curves: dict[str, tuple[list, list]] = {}
    for row in rows:
        xs, ys = curves.setdefault(row["stem"], ([], []))
        xs.append(float(row["window"]))
        ys.append(row[column])
    title = "SDR per window of one second" if column == "sdr" else "Predicted SDR per window of one second"
    chart = line_chart(title, "dB", curves, x_text=clock, width=900.0, height=140.0)
    return [chart] if chart else []


def _key(tonic: int | None, minor: bool | None) -> str:
    return "" if tonic is None else f"{_KEYS[int(tonic) % 12]} {'minor' if minor else 'major'}"


def _fact(value: object) -> str:
    return number(value, 2) if isinstance(value, float) else str(value)
