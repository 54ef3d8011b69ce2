"""The evaluation of a trained run on held-out images. It writes two files to the run's directory.

evaluation.json   metrics, mutual information matrix, origin of the data, command and commit
population.npz    moments of the latents over training images, which become the bundle's population, and the
                  reconstruction errors of validation images. Test images are left out, because the share of
                  false alarms is reported on them
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import xlogy

from service.bundle.population_file import to_npz
from service.core.detect.reconstruction import reconstruction_error
from service.core.population import Familiarity, Population
from train.data.dataset import Dataset, split
from train.evaluation import disentanglement
from train.evaluation.mig import information_gap, sampled_information_gap, ssim
from train.models.inference import CHUNK, decode, encode, to_tensor
from train.models.vae import VAE
from train.objectives.losses import Terms, kl_terms, kl_to_prior, reconstruction_nll
from train.provenance import command, commit
from train.training.checkpoint import load_config, load_model

HELD_OUT_IMAGES = 20_000
POPULATION_IMAGES = 50_000
FAMILIAR_IMAGES = 20_000
SSIM_IMAGES = 2_000
ELBO_IMAGES = 2_000
SUITE_IMAGES = 15_000
SUITE_FEWEST = 1_000  # forests and regressions learn too little from fewer images


def evaluate(directory: Path, dataset: Dataset, part: Literal["test", "validation"] = "test") -> dict[str, Any]:
    """Evaluate the run in `directory` on the held-out `part` of `dataset` and write both files.

    Return the content of evaluation.json.
    """
    torch.manual_seed(0)
    config, model = load_config(directory), load_model(directory)
    parts = split(len(dataset.images))
    # The parts are shuffled, so their first images are a fair sample.
    held_out = getattr(parts, part)[:HELD_OUT_IMAGES]
    population_rows, familiar_rows = parts.train[:POPULATION_IMAGES], parts.validation[:FAMILIAR_IMAGES]

    latents = encode(model, dataset.images, held_out)
    mean, logvar = latents.transpose(1, 0, 2)
    originals = dataset.images[held_out[:SSIM_IMAGES]]
    similarity = ssim(originals, decode(model, mean[:SSIM_IMAGES]))
    population = Population.from_latents(
        encode(model, dataset.images, population_rows),
        Familiarity.of(reconstruction_errors(model, dataset.images, familiar_rows), _tolerance(config)),
    )
    metrics: dict[str, Any] = {
        "ssim": float(similarity.mean()),
        **_elbo_terms(model, originals[:ELBO_IMAGES], latents[:ELBO_IMAGES], len(parts.train)),
        **_nll_bounds(originals[:ELBO_IMAGES], dataset.images[population_rows]),
        "live_latents": len(population.live_dims),
    }
    result: dict[str, Any] = {
        "factors": list(dataset.factor_names),
        "factor_sizes": list(dataset.factor_sizes),
        "mutual_information": [],
        "factor_entropy": [],
        "latent_kl": kl_to_prior(torch.from_numpy(mean), torch.from_numpy(logvar)).tolist(),
        "metrics": metrics,
    }
    if dataset.factor_names:
        factors = dataset.factors[held_out]
        gap = information_gap(mean, factors)
        sampled = sampled_information_gap(mean.astype(np.float64), logvar.astype(np.float64), factors)
        metrics |= {
            "mig": gap.gap,
            "mig_sampled": sampled.gap,
            **_suite(mean[:SUITE_IMAGES], factors[:SUITE_IMAGES], population.live_dims),
            "mig_per_factor": dict(zip(dataset.factor_names, gap.per_factor.tolist(), strict=True)),
            "mig_sampled_per_factor": dict(zip(dataset.factor_names, sampled.per_factor.tolist(), strict=True)),
        }
        result["mutual_information"] = gap.mutual_information.tolist()
        result["factor_entropy"] = gap.factor_entropy.tolist()
    if dataset.labels is not None and len(held_out) >= SUITE_FEWEST:
        metrics["label_accuracy"] = disentanglement.label_accuracy(mean, dataset.labels[held_out])
    result |= {
        "step": torch.load(directory / "checkpoint.pt", weights_only=True)["step"],
        "data": {
            **config["data"],
            "split": part,
            "train_images": len(parts.train),
            "held_out_images": len(held_out),
            "ssim_images": len(originals),
            "elbo_images": len(originals[:ELBO_IMAGES]),
            "population_images": len(population_rows),
            "familiar_images": len(familiar_rows),
            "suite_images": len(held_out[:SUITE_IMAGES]) if dataset.factor_names else 0,
        },
        "commit": commit(),
        "command": command(),
    }
    (directory / "population.npz").write_bytes(to_npz(population))
    (directory / "evaluation.json").write_text(json.dumps(result, indent=2) + "\n")
    return result


def _tolerance(config: dict[str, Any]) -> int:
    """Return the pixels that the foreign check excuses: of encoders that were distilled on treated images."""
    return int(config.get("distillation", {}).get("tolerance", 0))


def reconstruction_errors(model: VAE, images: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return reconstruction errors (len(rows),) of the images (N, H, W, C) at `rows`, as the service measures them."""
    chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    return np.concatenate(
        [reconstruction_error(images[chunk], decode(model, encode(model, images, chunk)[:, 0])) for chunk in chunks]
    )


@torch.inference_mode()
def _elbo_terms(
    model: VAE, images: NDArray[np.uint8], latents: NDArray[np.float32], population: int
) -> dict[str, float]:
    """Return the objective's terms on held-out images and the ELBO, in nats per image."""
    mean, logvar = torch.from_numpy(latents).unbind(1)
    sampled = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
    chunks = [slice(start, start + CHUNK) for start in range(0, len(images), CHUNK)]
    terms = [
        Terms(
            reconstruction_nll(model.decode(sampled[rows]), to_tensor(images[rows])),
            *kl_terms(sampled[rows], mean[rows], logvar[rows], population),
        )
        for rows in chunks
    ]
    sizes = [len(images[rows]) for rows in chunks]
    means = np.average([[value.item() for value in chunk] for chunk in terms], axis=0, weights=sizes)
    return {**dict(zip(Terms._fields, means.tolist(), strict=True)), "elbo": -float(means.sum())}


def _suite(mean: NDArray[np.float32], factors: NDArray[np.int64], live: NDArray[np.intp]) -> dict[str, float]:
    if len(mean) < SUITE_FEWEST:
        return {}
    latents = mean.astype(np.float64)
    return {
        **disentanglement.dci(latents, factors),
        "sap": disentanglement.sap(latents, factors),
        **disentanglement.infomec(latents, factors, live),
    }


def _nll_bounds(images: NDArray[np.uint8], train: NDArray[np.uint8]) -> dict[str, float]:
    """Return `reconstruction_nll` of images (N, H, W, C) for two extremes: exact reconstruction and the mean image.

    A grey pixel costs nats even where it is reconstructed exactly. The mean is taken over the training images (M, H, W,
    C) and one uniform grey image, so that no pixel has probability 0 or 1.
    """
    values = images.reshape(len(images), -1) / 255
    total = train.reshape(len(train), -1).sum(axis=0, dtype=np.int64) / 255
    mean = (total + 0.5) / (len(train) + 1)

    def nll(drawn: NDArray[np.float64]) -> float:
        return 0.0 - float((xlogy(values, drawn) + xlogy(1 - values, 1 - drawn)).sum(axis=1).mean())

    return {"perfect_nll": nll(values), "mean_image_nll": nll(mean)}
