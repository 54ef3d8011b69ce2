"""The kept results of a finished run: metrics.json and its figures, in the directory of its preset."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

from train.config.experiment import from_record
from train.evaluation.diagnosis import diagnose, explained_share

METRICS = "metrics.json"
LAST_RECORDS = 10  # of the log, over which the final losses are averaged
# Columns of the log that are not terms of the loss.
NO_LOSSES = ("step", "learning_rate", "images_per_second", "alpha", "beta", "gamma", "capacity", "gradient_norm")


def keep(run: Path, results: Path) -> Path:
    """Write `results`/PRESET/metrics.json of the finished `run` and copy its figures. Return the file written.

    Raises what `summarize` raises.
    """
    record = summarize(run)
    target = results / str(record["config"]["preset"]["name"])
    target.mkdir(parents=True, exist_ok=True)
    (target / METRICS).write_text(json.dumps(record, indent=2) + "\n")
    for figure in (run / "figures").glob("*.png"):
        shutil.copy(figure, target)
    return target / METRICS


def read_alignment_report(run: Path) -> dict[str, Any]:
    """Return the report of a run's alignment and second look; empty where it has done neither."""
    path = run / "unfolding.json"
    report: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return report


def summarize(run: Path) -> dict[str, Any]:
    """Return configuration, losses, training time and all measurements of the finished `run`.

    Raises FileNotFoundError where the run was not evaluated, ValueError where it is not finished, or was evaluated
    before it was.
    """
    config = json.loads((run / "config.json").read_text())
    preset = from_record(config["preset"])
    if not (run / "evaluation.json").exists():
        raise FileNotFoundError(f"{run} holds no evaluation.json: run `python -m train evaluate {run}` first")
    evaluation = json.loads((run / "evaluation.json").read_text())
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    unfolding = read_alignment_report(run)
    last = preset.last_step(unfolding.get("aligned"))
    if not last <= evaluation["step"] == records[-1]["step"]:
        raise ValueError(
            f"{run} is at step {records[-1]['step']} of {last}, evaluated at {evaluation['step']}: "
            "only a finished and evaluated run is kept"
        )
    return {
        "config": config,
        "seconds": seconds(records, preset.training_batch),
        "final_losses": final_losses(records),
        **(
            {"explained_share": explained_share(evaluation["metrics"])}
            if "perfect_nll" in evaluation["metrics"]
            else {}
        ),
        **({"unfolding": unfolding} if unfolding else {}),
        **({"remarks": diagnose(evaluation)} if "latent_kl" in evaluation else {}),
        **evaluation,
    }


def seconds(records: list[dict[str, Any]], training_batch: int) -> float:
    """Return the time spent in training steps, from the speed in each line of the log."""
    steps = [0, *(record["step"] for record in records)]
    images = [(after - before) * training_batch for before, after in pairwise(steps)]
    return float(sum(count / record["images_per_second"] for count, record in zip(images, records, strict=True)))


def final_losses(records: list[dict[str, Any]]) -> dict[str, float]:
    """Return the loss and its terms on training batches, in nats per image, averaged over the log's last lines."""
    last = records[-LAST_RECORDS:]
    return {name: sum(record[name] for record in last) / len(last) for name in last[-1] if name not in NO_LOSSES}
