"""Every experiment as a function that returns a frozen, typed configuration.

A run is its preset plus a seed: nothing else decides what is computed. Ranges are checked where the
fields are defined, so a bad value fails before any data is read.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal


@dataclass(frozen=True)
class ConvNetwork:
    """Convolutions 4x4 of stride 2, then one hidden layer, then mean and logvar; the decoder mirrors it."""

    channels: tuple[int, ...] = (32, 64, 128, 256)
    hidden: int = 256
    latent_dim: int = 12


@dataclass(frozen=True)
class BetaTCVAE:
    """Weights of the four terms of the beta-TCVAE objective (Chen et al. 2018, eq. 4).

    alpha, beta, gamma weight the index-code mutual information, the total correlation and the
    dimension-wise KL. `pressure` multiplies all three at the first step and falls geometrically to 1 over
    `pressure_steps`: a bottleneck that opens slowly lets the factors enter one at a time, each into a
    dimension of its own. `gamma_steps` anneals gamma in linearly from 0, as the plain recipe does.
    """

    alpha: float = 1.0
    beta: float = 6.0
    gamma: float = 1.0
    gamma_steps: int = 0
    pressure: float = 1.0
    pressure_steps: int = 0
    estimator: Literal["stratified", "weighted"] = "stratified"

    def __post_init__(self) -> None:
        if self.pressure < 1 or min(self.alpha, self.beta, self.gamma) < 0:
            raise ValueError(f"weights must be at least 0 and pressure at least 1, got {self}")
        if self.gamma_steps and self.pressure_steps:
            raise ValueError("gamma is either annealed in (gamma_steps) or pressed (pressure_steps), not both")


@dataclass(frozen=True)
class Preset:
    """One experiment. `steps` counts training batches of `training_batch` images.

    After those, `decoder_steps` more train the decoder alone, at a learning rate that falls again from
    `learning_rate` to `final_learning_rate`: with the encoder fixed only the likelihood is left of the objective,
    so that reconstructions sharpen while the latents, and how disentangled they are, stay as they were.
    """

    name: str
    dataset: str
    network: ConvNetwork
    objective: BetaTCVAE
    steps: int
    training_batch: int
    learning_rate: float
    final_learning_rate: float  # reached by a cosine from `decay_from` (a share of the steps) to the end
    decay_from: float = 0.0
    gradient_norm: float | None = None  # clip the gradient's norm to this
    narrow_steps: int = 0  # train at half the width for so long, then double it (train/networks.py)
    decoder_steps: int = 0
    description: str = ""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.training_batch < 2:
            raise ValueError(f"{self.name}: needs at least 1 step and 2 images a training batch")
        if not 0 < self.final_learning_rate <= self.learning_rate:
            raise ValueError(f"{self.name}: needs 0 < final_learning_rate <= learning_rate")
        if not 0 <= self.narrow_steps < self.steps:
            raise ValueError(f"{self.name}: narrow_steps must leave steps for the full width")
        if self.decoder_steps < 0:
            raise ValueError(f"{self.name}: decoder_steps must be at least 0")
        if not 0 <= self.decay_from < 1:
            raise ValueError(f"{self.name}: decay_from is a share of the steps, in [0, 1)")

    @property
    def total_steps(self) -> int:
        return self.steps + self.decoder_steps


def shapes3d_beta_tcvae() -> Preset:
    return Preset(
        name="shapes3d_beta_tcvae",
        dataset="shapes3d",
        network=ConvNetwork(),
        objective=BetaTCVAE(pressure=25, pressure_steps=8_000),
        steps=25_000,
        training_batch=128,
        learning_rate=1e-3,
        final_learning_rate=5e-5,
        decay_from=0.4,
        gradient_norm=1_000.0,
        narrow_steps=17_000,
        decoder_steps=15_000,
        description="3D Shapes, beta-TCVAE with pressure annealed out: the shipped recipe",
    )


def shapes3d_beta_tcvae_plain() -> Preset:
    return Preset(
        name="shapes3d_beta_tcvae_plain",
        dataset="shapes3d",
        network=ConvNetwork(),
        objective=BetaTCVAE(gamma_steps=5_000),
        steps=25_000,
        training_batch=128,
        learning_rate=5e-4,
        final_learning_rate=5e-4,
        description="3D Shapes, beta-TCVAE as first published for this project: only gamma is annealed in",
    )


PRESETS: dict[str, Callable[[], Preset]] = {
    make.__name__: make for make in (shapes3d_beta_tcvae, shapes3d_beta_tcvae_plain)
}


def from_record(record: dict[str, Any]) -> Preset:
    """The preset that `dataclasses.asdict` and JSON made `record` of."""
    network = ConvNetwork(**{**record["network"], "channels": tuple(record["network"]["channels"])})
    return Preset(**{**record, "network": network, "objective": BetaTCVAE(**record["objective"])})


def override(preset: Preset, setting: str) -> Preset:
    """`preset` with one field changed, given as "steps=5000" or "objective.beta=8"."""
    path, separator, text = setting.partition("=")
    owner, _, name = path.rpartition(".")
    parts: dict[str, Any] = {"": preset, "network": preset.network, "objective": preset.objective}
    known = [f"{part}.{field.name}".lstrip(".") for part, value in parts.items() for field in fields(value)]
    if not separator or path not in known:
        raise ValueError(f"{setting!r} is not FIELD=VALUE with one of the fields {', '.join(known)}")
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    changed = replace(parts[owner], **{name: value})
    return replace(preset, **{owner: changed}) if owner else changed
