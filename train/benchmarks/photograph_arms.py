"""Other latents for photographs, beside the axes that `misfit learn` finds: contexts as in `photographs`.

    axes            the bundle's: locality preserving axes of the backbone's features, and measured properties
    feature_tcvae   a beta-TCVAE over the same features, and the same properties
    vae             a beta-TCVAE on the pixels, the preset `folder` trained on the learned half
    vae_and_axes    the latents of both

Each arm's population is that of the learned half. Every arm is scored by the same estimators.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from service.bundle.manifest import ImageSpec
from service.core.detect.scoring import score
from service.core.population import Population
from service.core.types import EstimatorName
from service.learning import folder
from train.benchmarks.photographs import Cell, draw, encode, learn_half

FloatArray = NDArray[np.float64]

CELLS = (Cell(50, 4), Cell(100, 7), Cell(100, 20), Cell(350, 24))
ESTIMATORS: tuple[EstimatorName, ...] = ("density_ratio", "ensemble")
SIDE = 64


def run(collection: Path, contexts: int, seed: int, vae_steps: int) -> dict[str, Any]:
    """Measure every arm on `contexts` contexts of each cell. Without `vae_steps` the arms that need the VAE are left
    out.
    """
    with tempfile.TemporaryDirectory() as scratch:
        bundle, half, kept = learn_half(collection, Path(scratch), seed)
        learned_files = folder.find(Path(scratch, "half"))
        learned = encode(bundle, learned_files)
        arms = {"axes": (learned.latents, half.latents)}
        measured = np.flatnonzero([latent.unit is not None for latent in bundle.manifest.latents])
        arms["feature_tcvae"] = _with_properties(
            _feature_latents(learned.features, half.features, seed), arms, measured
        )
        if vae_steps:
            arms["vae"] = _vae_latents(learned_files, kept, Path(scratch, "run"), seed, vae_steps)
            arms["vae_and_axes"] = _join(arms["vae"], arms["axes"])
        populations = {name: Population.from_latents(known, None, graded=True) for name, (known, _) in arms.items()}
        entries = []
        for place, cell in enumerate(tqdm(CELLS, "cells")):
            random = np.random.default_rng([seed, place])
            drawn = [context for _ in range(contexts) if (context := draw(half, cell, random)) is not None]
            if not drawn:
                continue
            areas = {
                f"{name}, {estimator}": np.array(
                    [
                        roc_auc_score(truth, score(new[rows], populations[name], estimator=estimator).outlier_score)
                        for rows, truth in drawn
                    ]
                )
                for name, (_, new) in arms.items()
                for estimator in ESTIMATORS
            }
            entries.append(
                {
                    "size": cell.size,
                    "outliers": cell.outliers,
                    "contexts": len(drawn),
                    "auroc": {
                        name: {"mean": float(each.mean()), "worst_decile": float(np.quantile(each, 0.1))}
                        for name, each in areas.items()
                    },
                }
            )
        return {"collection": collection.name, "vae_steps": vae_steps, "cells": entries}


def _feature_latents(learned: FloatArray, new: FloatArray, seed: int) -> tuple[FloatArray, FloatArray]:
    from train.models import feature_vae

    model = feature_vae.fit(learned, seed, feature_vae.STEPS)
    return feature_vae.encode(model, learned), feature_vae.encode(model, new)


def _vae_latents(
    learned: Sequence[Path], new: Sequence[Path], run: Path, seed: int, steps: int
) -> tuple[FloatArray, FloatArray]:
    """Train the preset `folder` in `steps` steps; return the latents (n, 2, L) of both halves, those that live."""
    from train.config.overrides import resize, shorten
    from train.config.presets import PRESETS
    from train.data.dataset import Dataset
    from train.models.inference import encode as encode_pixels
    from train.training import loop
    from train.training.checkpoint import load_model

    preset = shorten(resize(PRESETS["folder"](), SIDE, 3), steps)
    spec = ImageSpec(height=SIDE, width=SIDE, channels=3)
    known, unknown = (folder.read(files, spec).pixels for files in (learned, new))
    nothing = np.zeros((len(known), 0), np.int64)
    loop.run(preset, Dataset(known, nothing, (), (), "folder", "own files"), run, seed=seed)
    model = load_model(run)
    latents = [encode_pixels(model, each, np.arange(len(each))).astype(np.float64) for each in (known, unknown)]
    return latents[0], latents[1]


def _with_properties(
    latents: tuple[FloatArray, FloatArray],
    arms: dict[str, tuple[FloatArray, FloatArray]],
    measured: NDArray[np.intp],
) -> tuple[FloatArray, FloatArray]:
    known, new = arms["axes"]
    return _join(latents, (known[..., measured], new[..., measured]))


def _join(first: tuple[FloatArray, FloatArray], second: tuple[FloatArray, FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Return the latents of both, (n, 2, L + K), of the learned half and of the other."""
    return np.concatenate([first[0], second[0]], axis=2), np.concatenate([first[1], second[1]], axis=2)
