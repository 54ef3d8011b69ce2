"""Command line: `python -m export RUN --out BUNDLE` turns a trained and evaluated run into a bundle."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch

from export import graphs, latent_names, parity
from export.card import model_card
from service.bundle import quality, store
from service.bundle.manifest import FORMAT_VERSION, SALIENCY, ImageSpec, Manifest
from service.bundle.population_file import POPULATION, from_npz
from service.bundle.store import Bundle
from service.core.types import DEFAULT_ESTIMATOR, EstimatorName
from service.errors import MisfitError
from train.training.checkpoint import load_config, load_model

# Weights trained on these data sets are published under the data's own licence.
LICENCES = {"shapes3d": "Apache-2.0", "dsprites": "Apache-2.0", "mnist": "CC-BY-SA-3.0"}


def export_run(
    run: Path,
    out: Path,
    *,
    name: str | None = None,
    licence: str | None = None,
    estimator: EstimatorName | None = None,
    force: bool = False,
) -> Bundle:
    """Write the model of `run` (trained, then evaluated) as a bundle to `out`.

    `estimator` is the bundle's default estimator. If None, it is the service's own default. With `force` a model is
    exported that is of no use: whose latents are dead or whose reconstructions are blank.

    Raises FileNotFoundError where the run is not trained and evaluated, ValueError where it was trained after its
    evaluation or is of no use, ParityError where ONNX Runtime and PyTorch differ, FileExistsError where `out` holds
    anything but a bundle. After an error nothing is written, and an older bundle stays as it is.
    """
    config = load_config(run)
    evaluation = _evaluation(run)
    if not force and quality.is_useless(evaluation["metrics"]):
        wrong = "; ".join(quality.remarks(evaluation["metrics"], len(evaluation["latent_kl"])))
        raise ValueError(
            f"{run} holds a model that is of no use: {wrong}. Train longer, on more images or with less pressure on "
            "the latents, or export it all the same with --force"
        )
    vae = load_model(run)
    population = from_npz((run / POPULATION).read_bytes(), vae.latent_dim)

    encoder, decoder, saliency = graphs.encoder(vae), graphs.decoder(vae), graphs.saliency(vae)
    reached = parity.check(vae, encoder, decoder, saliency, population)
    content = {"encoder.onnx": encoder, "decoder.onnx": decoder}
    if saliency is not None:
        content[SALIENCY] = saliency

    height, width, channels = vae.image_shape
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        model=name or config["preset"]["name"],
        image=ImageSpec.model_validate({"height": height, "width": width, "channels": channels}),
        latent_dim=vae.latent_dim,
        latents=latent_names.describe(
            vae.latent_dim,
            population.live_dims.tolist(),
            evaluation["factors"],
            evaluation["mutual_information"],
            evaluation["factor_entropy"],
        ),
        estimator=estimator,
        parity=reached,
        metrics={
            **evaluation["metrics"],
            "measured": {key: evaluation[key] for key in ("command", "commit")},
        },
        training=config,
        data=evaluation["data"],
        licence=licence or LICENCES.get(evaluation["data"]["name"], "not stated"),
    )
    return store.write(out, manifest, content, population, model_card(manifest, population, evaluation))


def main(arguments: Sequence[str] | None = None) -> int:
    """Export one run and return the exit code: 0, or 1 for an error that the message explains."""
    parser = argparse.ArgumentParser(prog="python -m export", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="directory of a trained and evaluated run")
    parser.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="directory to write")
    parser.add_argument("--name", help="the model's name; by default the preset's")
    parser.add_argument("--licence", help="licence of the weights; by default that of a known data set")
    parser.add_argument(
        "--estimator",
        choices=get_args(EstimatorName),
        help=f"of its contexts, where a request does not say; by default {DEFAULT_ESTIMATOR}",
    )
    parser.add_argument("--force", action="store_true", help="export even a model that is of no use")
    options = parser.parse_args(arguments)
    # The exporter warns that an optional package is not installed. It is not needed here.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        written = export_run(
            options.run,
            options.out,
            name=options.name,
            licence=options.licence,
            estimator=options.estimator,
            force=options.force,
        )
    except (MisfitError, parity.ParityError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    manifest = written.manifest
    for remark in quality.remarks(manifest.metrics, manifest.latent_dim):
        print(f"warning: {remark}", file=sys.stderr)
    reached = manifest.parity
    maps = "none" if reached.saliency_relative is None else f"{reached.saliency_relative:.1e}"
    print(
        f"{options.out}: bundle {manifest.bundle_id[:12]} of {manifest.model}\n"
        f"It knows {manifest.trained_on}. {quality.describe_drawing(manifest)}\n"
        f"parity at {reached.batch_sizes} images: latents {reached.latents_relative:.1e}, "
        f"pixels {reached.pixels_grey_levels} grey level(s), heat maps {maps}\n"
        f"latents: {', '.join(latent.name for latent in manifest.latents)}"
    )
    return 0


def _evaluation(run: Path) -> dict[str, Any]:
    try:
        evaluation: dict[str, Any] = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{run} holds no evaluation.json: run `python -m train evaluate {run}` first"
        ) from error
    trained: int = torch.load(run / "checkpoint.pt", weights_only=True)["step"]
    if evaluation["step"] != trained:
        raise ValueError(
            f"{run} was evaluated at step {evaluation['step']} and trained to step {trained} since: its figures "
            f"are another model's. Run `python -m train evaluate {run}` again"
        )
    return evaluation


if __name__ == "__main__":
    sys.exit(main())
