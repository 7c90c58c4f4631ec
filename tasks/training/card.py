"""The model card of weights, from the record of the training that made them."""

from model.checkpoint import Weights, model_id


def model_card(data: bytes, name: str | None = None) -> str:
    """Markdown: what the weights are, what they learned from, and how they were validated.

    Args:
        data: A weights file's bytes.
        name: The model id to show instead of that of the weights, for a preset that borrows them.

    Raises:
        CheckpointError: The bytes are not weights of ours.
    """
    weights = Weights.from_bytes(data, "weights")
    record, preset = weights.record, weights.preset
    name = name or model_id(preset.name, data)
    hours = sum(entry["hours"] for entry in record.get("datasets", {}).values())
    lines = [
        f"# {name}",
        "",
        f"Preset `{name.rpartition('-')[0]}`: {' and '.join(preset.stems)} from {preset.sample_rate} Hz, "
        f"{record.get('parameters', 0) / 1e6:.1f} M parameters.",
        "",
        f"Trained {record.get('best_step')} steps ({record.get('seconds', 0) / 60:.0f} minutes, "
        f"{record.get('device')} in {record.get('precision')}, seed {record.get('seed')}) on {hours:.1f} hours:",
        "",
        "| dataset | tracks | hours |",
        "|---|---|---|",
    ]
    lines += [f"| {n} | {e['tracks']} | {e['hours']:.2f} |" for n, e in sorted(record.get("datasets", {}).items())]
    if "validation_csdr" in record:
        lines += [
            "",
            f"Validation, {' and '.join(preset.estimated)}, mean over tracks kept out of training: "
            f"cSDR {record['validation_csdr']:.2f} dB (each scored alone, the "
            "highest and the lowest tenth of the scores left out).",
        ]
    if curve := record.get("validation_curve"):
        lines += ["", "By step: " + ", ".join(f"{step} {csdr:.2f}" for step, csdr in curve) + " dB."]
    calibration = weights.calibrations.get(name.rpartition("-")[0])
    if calibration is not None:
        lines += [
            "",
            "Predicted scores (`predicted_sdr`), as they agree with true ones on songs they were not fitted on:",
            "",
        ]
        lines += [
            f"- {stem}: mean error {fit['error']:.1f} dB, 80 % of true scores from {fit['low']:+.1f} to "
            f"{fit['high']:+.1f} dB of the prediction ({fit['songs']} songs)"
            for stem, fit in sorted(calibration["stems"].items())
        ]
    return "\n".join([*lines, ""])
