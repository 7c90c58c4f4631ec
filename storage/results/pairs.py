"""Which tracks of a catalog go together as mash-ups: all pairs, ranked in DuckDB."""

from storage.files.layout import OutputLayout
from storage.results.rows import PairRow, read_rows

# Tempi are compared modulo octaves of two, since beats may be counted double. Only pairs within 15 % are joined,
# by buckets of that width and their neighbours, so that a large catalog is no square.
_RANKED = """
with latest as (
    select * from analyses where error is null and clarity > 0.25 and tempo > 0
    qualify row_number() over (partition by track_id order by finished_at desc) = 1
), folded as (
    select *, log2(tempo) - floor(log2(tempo)) as octave from latest
), bucketed as (
    select *, cast(floor(octave / 0.2) as integer) as bucket from folded
), neighbours as (
    select *, unnest([bucket - 1, bucket, bucket + 1]) as meets from bucketed
), pairs as (
    select
        a.path as vocals_of, b.path as accompaniment_of, a.track_id as vocals_id, b.track_id as accompaniment_id,
        a.model_id, a.tempo as tempo_a, b.tempo as tempo_b, k.semitones, k.distance, a.vocal_activity,
        a.predicted_sdr, a.key_confidence * b.key_confidence as sure,
        case when abs(b.octave - a.octave) <= 0.5 then b.octave - a.octave
             else b.octave - a.octave - sign(b.octave - a.octave) end as apart
    from bucketed b join neighbours a on (a.meets + 5) % 5 = b.bucket
    join keys k on k.tonic_a = a.tonic and k.minor_a = a.minor and k.tonic_b = b.tonic and k.minor_b = b.minor
    where a.track_id <> b.track_id and a.vocal_activity >= 0.05
), scored as (
    select *, pow(2, apart) as speed,
        exp(-pow(apart / 0.1, 2)) * (1 - abs(semitones) / 8.0 - distance / 24.0)
        * (0.4 + 0.6 * least(1.0, vocal_activity / 0.6))
        * (0.4 + 0.6 * least(1.0, greatest(0.0, coalesce(predicted_sdr, 5.0) / 12.0))) as score
    from pairs where abs(apart) <= 0.2
)
select * from scored order by score desc, vocals_id, accompaniment_id limit $top
"""


def rank_pairs(out: OutputLayout, keys: list[dict], top: int) -> list[PairRow]:
    """The `top` best pairs of the tracks in OUT's table of analyses, the best first.

    `keys` says for every two keys (tonic_a, minor_a, tonic_b, minor_b) the semitones to shift and the distance
    that is left then. The score is the product of how near the tempi are (speed 1 is best), how little the
    vocals must be shifted, how much they sing, and how well they were probably separated.
    """
    import duckdb
    import pyarrow as pa

    connection = duckdb.connect(config={"python_enable_replacements": "false"})
    try:
        connection.register("analyses", read_rows(out, "analyses"))
        connection.register("keys", pa.Table.from_pylist(keys))
        rows = connection.sql(_RANKED, params={"top": top}).to_arrow_table().to_pylist()
    finally:
        connection.close()
    return [
        PairRow(
            rank=rank,
            vocals_of=row["vocals_of"],
            accompaniment_of=row["accompaniment_of"],
            vocals_id=row["vocals_id"],
            accompaniment_id=row["accompaniment_id"],
            score=row["score"],
            reason=_reason(row),
            model_id=row["model_id"],
            speed=row["speed"],
            semitones=row["semitones"],
            key_distance=row["distance"],
            vocal_activity=row["vocal_activity"],
            predicted_sdr=row["predicted_sdr"],
        )
        for rank, row in enumerate(rows, start=1)
    ]


def _reason(row: dict) -> str:
    shift = f"{row['semitones']:+d} semitones" if row["semitones"] else "no shift"
    key = {0: "the same notes", 1: "keys a fifth apart"}.get(row["distance"], f"keys {row['distance']} fifths apart")
    quality = "" if row["predicted_sdr"] is None else f", about {row['predicted_sdr']:.0f} dB separated"
    return (
        f"{row['tempo_a']:.0f} on {row['tempo_b']:.0f} bpm (speed {row['speed']:.2f}), {shift} to {key}, "
        f"sings {row['vocal_activity']:.0%}{quality}"
    )
