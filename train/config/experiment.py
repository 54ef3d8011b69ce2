"""The parts of a preset: network, objective and schedule, as frozen typed records, and their form in JSON.

A run is its preset and a seed; nothing else decides what is computed. Each record checks the ranges of its fields, so
an invalid value fails before any data is read.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

ImageShape = tuple[int, int, int]  # height, width, channels


@dataclass(frozen=True)
class Network:
    """Convolutions 4x4 of stride 2, then hidden layers, then mean and logvar. The decoder mirrors the encoder.

    Without convolutions the network is a multilayer perceptron. `leak` is the slope of the LeakyReLU below 0; 0 makes
    it a ReLU.
    """

    channels: tuple[int, ...] = (32, 64, 128, 256)
    hidden: tuple[int, ...] = (256,)
    latent_dim: int = 12
    leak: float = 0.2

    def __post_init__(self) -> None:
        if not self.hidden or min(*self.channels, *self.hidden, self.latent_dim) < 1:
            raise ValueError(f"a network needs a hidden layer and at least 1 feature in every layer, got {self}")


@dataclass(frozen=True)
class BetaVAE:
    """Weight of the KL in the beta-VAE objective (Higgins et al. 2017, eq. 4); 1 is the plain VAE."""

    beta: float = 1.0

    def __post_init__(self) -> None:
        if self.beta < 0:
            raise ValueError(f"beta must be at least 0, got {self}")


@dataclass(frozen=True)
class CapacityVAE:
    """The capacity objective gamma |KL - C|: the KL follows a growing capacity C (Burgess et al. 2018, eq. 8).

    C grows linearly from 0 to `capacity` nats per image over `capacity_steps`. `gamma` is constant until then and falls
    linearly to `final_gamma` over the next `decay_steps`.
    """

    gamma: float
    capacity: float
    capacity_steps: int
    final_gamma: float | None = None  # None: it does not fall
    decay_steps: int = 0

    def __post_init__(self) -> None:
        if min(self.gamma, self.final_gamma or 0, self.capacity) < 0 or self.capacity_steps < 1:
            raise ValueError(f"gamma and capacity must be at least 0 and capacity_steps at least 1, got {self}")
        if (self.final_gamma is None) != (self.decay_steps == 0):
            raise ValueError(f"final_gamma and decay_steps go together, got {self}")


@dataclass(frozen=True)
class BetaTCVAE:
    """Weights of the terms of the beta-TCVAE objective (Chen et al. 2018, eq. 4).

    `alpha`, `beta` and `gamma` weight the index-code mutual information, the total correlation and the dimension-wise
    KL. `pressure` multiplies all three at the first step and falls geometrically to 1 over `pressure_steps`. The
    bottleneck then opens slowly, and the factors enter one at a time, each into its own latent. `gamma_steps` anneals
    gamma in linearly from 0, as the plain recipe does.
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


Objective = BetaVAE | CapacityVAE | BetaTCVAE
OBJECTIVES: dict[str, type[BetaVAE] | type[CapacityVAE] | type[BetaTCVAE]] = {
    kind.__name__: kind for kind in (BetaVAE, CapacityVAE, BetaTCVAE)
}


@dataclass(frozen=True)
class Preset:
    """One experiment. It trains for `steps` training batches of `training_batch` images.

    Width: the network has half its width for `narrow_steps`, then the full one (train/models/net2net.py).

    Alignment: after `folded_steps` dead latents are dropped, and a latent whose sign depends on the context is aligned
    (train/alignment/align_latents.py). With `second_look` the aligned latents are compared across contexts after the
    last step (train/alignment/edge_matching.py). Where they disagree they are refitted, and all steps after
    `folded_steps` are repeated.

    Decoder: after `steps`, `decoder_steps` more train the decoder alone, at a learning rate that falls again from
    `learning_rate` to `final_learning_rate`. With the encoder fixed only the likelihood remains of the objective, so
    reconstructions become sharper while the latents and their disentanglement stay the same. `structure` times 1 - SSIM
    is added to the loss, because the likelihood hardly penalises faint noise on a plain surface that a person sees at
    once. Where `bilateral_radius` is not 0, a bilateral filter of that radius in pixels is appended to the decoder
    (train/models/bilateral_filter.py).

    Raises ValueError for values out of range, and for stages that do not fit together.
    """

    name: str
    dataset: str
    network: Network
    objective: Objective
    steps: int
    training_batch: int
    learning_rate: float
    final_learning_rate: float  # reached by a cosine from `decay_from` (a share of the steps) to the end
    decay_from: float = 0.0
    gradient_norm: float | None = None  # clip the gradient's norm to this
    narrow_steps: int = 0  # train at half the width for so long, then double it (train/models/net2net.py)
    folded_steps: int = 0
    second_look: bool = False
    decoder_steps: int = 0
    structure: float = 0.0  # in nats per image
    bilateral_radius: int = 0
    image_shape: ImageShape | None = None  # shape of the images, where the data set does not fix it
    description: str = ""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.training_batch < 2:
            raise ValueError(f"{self.name}: needs at least 1 step and 2 images a training batch")
        if not 0 < self.final_learning_rate <= self.learning_rate:
            raise ValueError(f"{self.name}: needs 0 < final_learning_rate <= learning_rate")
        if not 0 <= self.narrow_steps < self.steps:
            raise ValueError(f"{self.name}: narrow_steps must leave steps for the full width")
        if self.folded_steps and not self.narrow_steps < self.folded_steps < self.steps:
            raise ValueError(f"{self.name}: folded_steps must lie between narrow_steps and steps, both left out")
        if self.second_look and not self.folded_steps:
            raise ValueError(f"{self.name}: a second look is at latents that were unfolded, set folded_steps too")
        if self.folded_steps and not isinstance(self.objective, BetaTCVAE):
            raise ValueError(f"{self.name}: only latents of BetaTCVAE are unfolded, set folded_steps to 0")
        if self.decoder_steps < 0:
            raise ValueError(f"{self.name}: decoder_steps must be at least 0")
        if self.structure < 0 or (self.structure and not self.decoder_steps):
            raise ValueError(f"{self.name}: structure must be at least 0, and is for decoder_steps only")
        if self.bilateral_radius < 0 or (self.bilateral_radius and not self.decoder_steps):
            raise ValueError(f"{self.name}: bilateral_radius must be at least 0, and is for decoder_steps only")
        if not 0 <= self.decay_from < 1:
            raise ValueError(f"{self.name}: decay_from is a share of the steps, in [0, 1)")

    @property
    def total_steps(self) -> int:
        """Return the number of steps of a run without refitting at the end."""
        return self.steps + self.decoder_steps

    @property
    def most_steps(self) -> int:
        """Return the number of steps of a run whose latents are refitted at the end."""
        return self.total_steps + (self.total_steps - self.folded_steps if self.second_look else 0)

    def last_step(self, aligned: bool | None) -> int:
        """Return the last step of a run.

        `aligned` tells whether the second look refitted the latents; None where it has not taken place.
        """
        return self.total_steps if not self.second_look or aligned is False else self.most_steps

    def scheduled(self, step: int) -> int:
        """Return the step whose learning rate and loss weights apply at `step`: its own, or the one that it repeats."""
        return step if step < self.total_steps else step - self.total_steps + self.folded_steps


def record_of(preset: Preset) -> dict[str, Any]:
    """Return `preset` as JSON types. `from_record` is the inverse."""
    record = asdict(preset)
    record["objective"] = {"kind": type(preset.objective).__name__, **record["objective"]}
    return record


def from_record(record: dict[str, Any]) -> Preset:
    """Return the preset of a record that `record_of` made."""
    network, objective = dict(record["network"]), dict(record["objective"])
    network |= {name: tuple(network[name]) for name in ("channels", "hidden")}
    kind = OBJECTIVES[objective.pop("kind")]
    shape = record.get("image_shape")
    return Preset(
        **{
            **record,
            "network": Network(**network),
            "objective": kind(**objective),
            "image_shape": shape and tuple(shape),
        }
    )
