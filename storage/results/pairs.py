"""Which tracks of a catalog go together as mash-ups: all pairs, ranked in DuckDB by the weights that a caller gives."""

from collections.abc import Mapping

from storage.files.layout import OutputLayout
from storage.results.mashup_rows import PairRow
from storage.results.query import opened

# Tempi are compared modulo octaves of two, since beats may be counted double. Only pairs of near tempi are joined, by
# five buckets per octave and their neighbours, so that a large catalog does not make a square of comparisons.
_RANKED = """
with latest as (
    select * from analyses where error is null and clarity > $least_clarity and tempo > 0
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
    where a.track_id <> b.track_id and a.vocal_activity >= $least_activity
), scored as (
    select *, pow(2, apart) as speed,
        exp(-pow(apart / $tempo_octaves, 2)) * (1 - abs(semitones) / $semitones - distance / $fifths)
        * (1 - $activity_share * (1 - least(1.0, vocal_activity / $full_activity)))
        * (1 - $quality_share * (1 - least(1.0, greatest(0.0, coalesce(predicted_sdr, $usual_sdr) / $full_sdr))))
            as score
    from pairs where abs(apart) <= $most_octaves
)
select * from scored order by score desc, vocals_id, accompaniment_id limit $top
"""


def rank_pairs(out: OutputLayout, keys: list[dict], weights: Mapping[str, float], top: int) -> list[PairRow]:
    """The best pairs of the tracks in OUT's table of analyses, the best first.

    Args:
        out: The run folder.
        keys: One dict per two keys (tonic_a, minor_a, tonic_b, minor_b): the `semitones` to shift, and the `distance`
            in fifths that is left then.
        weights: The parameters of the score, by name; see `tasks.mashup.pairing.WEIGHTS`.
        top: How many pairs at most.

    Raises:
        MetricsError: There are no analyses.
    """
    import pyarrow as pa

    with opened(out.root) as connection:
        connection.register("keys", pa.Table.from_pylist(keys))
        rows = connection.sql(_RANKED, params={**weights, "top": top}).to_arrow_table().to_pylist()
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
