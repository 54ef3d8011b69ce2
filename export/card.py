"""The model card of a bundle: what the model is, what was measured, and its limits.

Every figure is read from the manifest or from the run's evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from service.bundle import quality
from service.bundle.manifest import Manifest
from service.core.population import Population
from train.reports.markdown import table

CARD = """\
# {model}

A variational autoencoder of {height} x {width} {colour} images with {latent_dim} latents, for misfit: the
encoder places an image among the factors that it learned, the service compares the images of a request
with each other there, and the decoder shows what an image would look like in another place.

## Use

Made for images like those that it was trained on: to find the ones that do not belong in their batch,
to name the factor that sets them apart, and to draw their corrected versions. Images of another size are resized
first. It knows {trained_on}, and has learned nothing about other kinds of image: it encodes a photograph all the same,
and the latents that it gives then mean nothing. Whether an image is wrong is not for it to say; it measures how
far an image stands from its context. Contexts are estimated by `{estimator}` where a request does not say.

## Data

{data}

## Figures

{drawing}

Measured by `{command}` at commit `{commit}`.

{figures}

## Latents

A latent bears the name of the factor that it shares most information with, where it holds a good part of
that factor's entropy. Spread is the standard deviation of the posterior means over {population_size} training
images, uncertainty the root of their mean posterior variance.

{latents}
{information}
## Limits

{limits}

## Training
{distilled}
```json
{training}
```

## Graphs

`encoder.onnx` takes `images`, uint8 (N, {height}, {width}, {channels}), and gives `latents`, float32
(N, 2, {latent_dim}): mean, then logvar. `decoder.onnx` takes `latents`, float32 (N, {latent_dim}), and gives
`images`, uint8 (N, {height}, {width}, {channels}). {saliency}Scaling, layout and sigmoid are inside.

ONNX Runtime on the CPU was compared with PyTorch in float32 at {parity_batches} images: the latents differed by at most
{parity_latents} of their scale, {parity_saliency}the pixels by at most {parity_pixels} of 255 grey
levels.

## Licence

The weights: {licence}.{origin}
"""

SALIENCY = """\
`saliency.onnx` takes what the encoder takes and gives `saliency`, float32 (N, {latent_dim}, h, w): where the encoder's
last convolution shows what each mean is read from, with its sign; a map adds up to its latent's mean, but for what the
biases give. """

DISTILLED = """
After the training that `preset` describes, the encoder was distilled: it saw images that were moved, rotated,
compressed, lit otherwise, blurred, covered in part or made noisy, and learned the latents that the bundle named in
`distillation` gives the clean ones. The decoder is that bundle's. `earlier_distillations` say how that bundle was
distilled itself, if it was. The foreign check excuses moves of up to `tolerance` pixels, light and grain.
"""

# The meaning of each figure. A figure that is not listed appears under its own name.
FIGURES = {
    "ssim": "structural similarity of images and their reconstructions",
    "reconstruction_nll": "Bernoulli cross-entropy of images given their reconstructions, nats per image",
    "mutual_information": "of images and latents, nats per image",
    "total_correlation": "of the latents, nats per image",
    "dimension_wise_kl": "from the latents to the prior, dimension by dimension, nats per image",
    "elbo": "evidence lower bound, nats per image",
    "perfect_nll": "what `reconstruction_nll` would be if every image were drawn exactly as it is",
    "mean_image_nll": "what it would be if every image were drawn as the mean of all",
    "live_latents": "latents that vary over the training images",
    "label_accuracy": "share of images whose label a logistic regression on the latents predicts",
    "dci_disentanglement": "DCI (Eastwood & Williams 2018): does a latent serve one factor only",
    "dci_completeness": "DCI: is a factor served by one latent only",
    "dci_informativeness": "DCI: share of factors that a forest predicts from the latents",
    "sap": "separated attribute predictability (Kumar et al. 2018)",
    "infomec_modularity": "InfoM (Hsu et al. 2023): does a latent know one factor only",
    "infomec_explicitness": "InfoE: what a linear model learns of the factors from the latents",
    "infomec_compactness": "InfoC: is a factor known by one latent only",
    "mig": "mutual information gap, on the posterior means",
    "mig_sampled": "mutual information gap, on sampled latents (Chen et al. 2018)",
}
WIDE_GAP = 0.5  # of a factor's entropy: below it, the card says that the factor is spread over several latents

SOURCES = {
    ("shapes3d", "rendered"): """\
The images are a re-rendering of 3D Shapes, made by `python -m train render shapes3d` in the layout of the
official file: the same factors, with geometry, light and texture fitted to published frames. They are not the official
images, and what is measured on them is not measured on the official data.""",
    ("dsprites", "rendered"): """\
The images are a re-rendering of dSprites, made by `python -m train render dsprites`: the same factors, with outlines
fitted to published frames. They are not the official images, and what is measured on them is not measured on the
official data.""",
    ("dsprites", "official"): "The images are those of the official dSprites file.",
    ("mnist", "official"): "The images are all 70,000 digits of MNIST, training and test digits together, split anew.",
    ("folder", "own files"): "The images are a folder of the user's own, each brought to the size and colours above.",
    ("shapes3d", "official"): "The images are those of the official 3D Shapes file, 3dshapes.h5.",
}
ORIGINS = {
    "shapes3d": "3D Shapes (Burgess and Kim 2018, google-deepmind/3d-shapes) is published under Apache-2.0.",
    "mnist": "MNIST (LeCun, Cortes and Burges 1998) is held to be published under CC BY-SA 3.0.",
    "dsprites": "dSprites (Matthey et al. 2017, google-deepmind/dsprites-dataset) is published under Apache-2.0.",
}


def model_card(manifest: Manifest, population: Population, evaluation: Mapping[str, Any]) -> str:
    """Return the card as Markdown. `evaluation` is the run's evaluation.json."""
    height, width, channels = manifest.image.shape
    name, source = (str(manifest.data.get(key)) for key in ("name", "source"))
    saliency = manifest.parity.saliency_relative
    facts = _table(("", ""), [(key.replace("_", " "), _shown(value)) for key, value in manifest.data.items()])
    return CARD.format(
        model=manifest.model,
        height=height,
        width=width,
        channels=channels,
        colour="colour" if channels == 3 else "grey",
        latent_dim=manifest.latent_dim,
        estimator=manifest.default_estimator,
        trained_on=manifest.trained_on,
        drawing=quality.describe_reconstructions(manifest.metrics),
        data="\n\n".join(filter(None, (SOURCES.get((name, source)), facts))),
        command=evaluation["command"],
        commit=evaluation["commit"],
        figures=_figures(evaluation["metrics"]),
        population_size=f"{population.size:,}",
        latents=_latents(manifest, population, evaluation),
        information=_information(manifest, evaluation),
        limits=_limits(manifest, evaluation),
        distilled=DISTILLED if "distillation" in manifest.training else "",
        training=json.dumps(manifest.training, indent=2, ensure_ascii=False),
        parity_batches=_listed(map(str, manifest.parity.batch_sizes)),
        parity_latents=f"{manifest.parity.latents_relative:.1e}",
        saliency=SALIENCY.format(latent_dim=manifest.latent_dim) if saliency is not None else "",
        parity_saliency=f"the heat maps by {saliency:.1e}, " if saliency is not None else "",
        parity_pixels=manifest.parity.pixels_grey_levels,
        licence=manifest.licence,
        origin=f" {ORIGINS[name]}" if name in ORIGINS else "",
    )


def _figures(metrics: Mapping[str, Any]) -> str:
    rows = [
        (key, _shown(value), FIGURES.get(key, "")) for key, value in metrics.items() if not isinstance(value, Mapping)
    ]
    figures = _table(("figure", "value", "meaning"), rows)
    gaps: Mapping[str, float] = metrics.get("mig_per_factor", {})
    if not gaps:
        return figures
    per_factor = _table(tuple(gaps), [tuple(map(_shown, gaps.values()))])
    return f"{figures}\n\nThe mutual information gap of each factor:\n\n{per_factor}"


def _latents(manifest: Manifest, population: Population, evaluation: Mapping[str, Any]) -> str:
    entropy = dict(zip(evaluation["factors"], evaluation["factor_entropy"], strict=True))
    spread = np.sqrt(np.diag(population.covariance))
    uncertainty = np.sqrt(population.posterior_variance)
    rows = []
    for latent in manifest.latents:
        information, share = "", ""
        if latent.factor is not None and latent.mutual_information is not None:
            information = f"{latent.mutual_information:.2f}"
            share = f"{latent.mutual_information / entropy[latent.factor]:.0%}"
        index = latent.index
        rows.append((str(index), latent.name, information, share, f"{spread[index]:.2f}", f"{uncertainty[index]:.2f}"))
    header = ("", "name", "information, nats", "of the factor's entropy", "spread", "uncertainty")
    return _table(header, rows)


def _information(manifest: Manifest, evaluation: Mapping[str, Any]) -> str:
    if not evaluation["factors"]:
        return ""
    matrix: list[list[float]] = [*evaluation["mutual_information"], evaluation["factor_entropy"]]
    names = [*(latent.name for latent in manifest.latents), "entropy of the factor"]
    rows = [(name, *(f"{value:.2f}" for value in row)) for name, row in zip(names, matrix, strict=True)]
    matrix_rows = _table(("", *evaluation["factors"]), rows)
    return f"\n## Mutual information of latents and factors, in nats\n\n{matrix_rows}\n"


def _limits(manifest: Manifest, evaluation: Mapping[str, Any]) -> str:
    limits = ["It knows the factors of its training data and no others."]
    followed = {latent.factor for latent in manifest.latents}
    if unfollowed := [factor for factor in evaluation["factors"] if factor not in followed]:
        limits.append(
            f"No latent is named after {_listed(unfollowed)}: an image that differs in nothing else may pass unseen, "
            "and no answer will name it."
        )
    gaps: Mapping[str, float] = evaluation["metrics"].get("mig_per_factor", {})
    if spread := [f"{factor} ({gap:.2f})" for factor, gap in gaps.items() if gap < WIDE_GAP]:
        limits.append(
            f"The mutual information gap is below {WIDE_GAP} for {_listed(spread)}: no single latent stands for "
            "such a factor. Either several share it, so that an image which differs in it is explained by several "
            "names, or none knows much of it."
        )
    limits += [f"{remark[0].upper()}{remark[1:]}." for remark in quality.remarks(manifest.metrics, manifest.latent_dim)]
    if manifest.dead_dims:
        limits.append(f"Dead latents, which carry nothing: {_listed(map(str, manifest.dead_dims))}.")
    if not evaluation["factors"]:
        limits.append("Its latents are numbered: the data came without factors to name them after.")
    return "\n".join(f"- {limit}" for limit in limits)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(table(header, rows))


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _listed(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
