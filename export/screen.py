"""Add a screen to a bundle: python -m export.screen BUNDLE

The foreign check compares an image with what the decoder draws from its latents. Decoding costs more than encoding. A
screen is a small network that draws coarsely: the mean and the standard deviation of every block of pixels. It is
trained on what the decoder draws. An image whose coarse error is well below the limit is not foreign, and is not
decoded.

In every block the mean squared difference of two images is at least the squared difference of their means and that of
their deviations together. So the coarse error is a lower bound of the plain one, but for what the screen draws wrongly.
The foreign images of the benchmark have coarse errors of 1.2 times the limit and more.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from export import graphs
from export.command import GraphRefused, add_to_bundle
from service.bundle import store
from service.bundle.store import Bundle
from service.core.population import Familiarity, Population
from service.errors import InvalidInput
from service.inference.onnx_runtime import OnnxNetworks

BLOCK = 4  # pixels
# Of the population's limit: what is at most this is not decoded.
CUTOFF = 0.75
HIDDEN, LATENTS, STEPS, TRAINING_BATCH, LEARNING_RATE = 256, 40_000, 6_000, 256, 4e-3
# Standard deviations of the population by which the latents that are trained on are off those of its sample.
SPREAD = 0.2
DECODED_AT_A_TIME = 1_000
VERIFIED = 300

Images = NDArray[np.uint8]


class ScreenError(GraphRefused):
    """The screen would hide foreign images, so it must not be written."""


class Screen(nn.Module):
    """The coarse error (N,), in grey levels squared, of images uint8 (N, H, W, C) with latents (N, L)."""

    def __init__(self, latent_dim: int, values: int, hidden: int = HIDDEN) -> None:
        """Make an untrained screen: `values` means and deviations of the blocks of an image."""
        super().__init__()
        sizes = (latent_dim, hidden, hidden, hidden)
        layers = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.SiLU())]
        self.mean = nn.Parameter(torch.zeros(values))  # of all blocks: the network draws what differs from it
        self.network = nn.Sequential(*layers, nn.Linear(hidden, values))

    def blocks(self, latents: Tensor) -> Tensor:
        """Return the means and deviations (N, values) of what is drawn from latents (N, L)."""
        drawn: Tensor = self.mean + self.network(latents)
        return drawn

    def forward(self, images: Tensor, latents: Tensor) -> Tensor:
        difference = blocks_of(images) - self.blocks(latents)
        error: Tensor = difference.square().sum(dim=1) * (2 * 255**2 / difference.shape[1])
        return error


def blocks_of(images: Tensor) -> Tensor:
    """Return the means, then the standard deviations, of the blocks of images uint8 (N, H, W, C), in [0, 1]."""
    pixels = images.permute(0, 3, 1, 2).float() / 255
    means = functional.avg_pool2d(pixels, BLOCK)
    variances = functional.avg_pool2d(pixels * pixels, BLOCK) - means * means
    return torch.cat([means.flatten(1), variances.clamp(min=0).sqrt().flatten(1)], dim=1)


def add_screen(directory: Path, *, steps: int = STEPS, latents: int = LATENTS) -> Bundle:
    """Train a screen for the bundle at `directory`, and write the bundle again with it. The bundle_id stays.

    Raises InvalidInput where the bundle has nothing to screen, ScreenError where the screen would hide foreign images,
    and what `store.load` raises. After an error the bundle stays as it is.
    """
    bundle = store.load(directory)
    networks, image, population = OnnxNetworks(bundle), bundle.manifest.image, bundle.population
    if bundle.projection is not None or population.sample is None or population.familiarity is None:
        raise InvalidInput(
            f"{directory} does not check images by decoding them, so that there is nothing to screen.",
            "Name a bundle with decoder.onnx, whose population.npz has a sample and errors.",
        )
    if image.height % BLOCK or image.width % BLOCK:
        raise InvalidInput(
            f"{directory} takes images of {image.width} x {image.height} pixels; a screen needs sides that "
            f"{BLOCK} divides.",
            "Leave the screen out: it makes the check cheaper, and changes no answer.",
        )
    torch.manual_seed(0)
    known = draw_latents(population, latents, np.random.default_rng(0))
    targets = []
    for start in tqdm(range(0, len(known), DECODED_AT_A_TIME), "decoding", mininterval=2):
        targets.append(blocks_of(torch.from_numpy(networks.decode(known[start : start + DECODED_AT_A_TIME]))))
    screen = train(torch.from_numpy(known), torch.cat(targets), steps)
    cutoff = CUTOFF * population.familiarity.limit
    verify(screen, networks, population, population.familiarity, cutoff)
    example = torch.zeros(2, *image.shape, dtype=torch.uint8), torch.zeros(2, bundle.manifest.latent_dim)
    return store.add_screen(bundle, graphs.export(screen, example, ("images", "latents"), "error"), cutoff)


def draw_latents(population: Population, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return latents (count, L) around the population's sample: half near its images, half with latents of several."""
    assert population.sample is not None, "only populations with a sample are drawn from"
    rows = rng.integers(0, len(population.sample), (count, population.sample.shape[1]))
    rows[: count // 2] = rows[: count // 2, :1]
    means = np.take_along_axis(population.sample, rows, axis=0)
    spread = SPREAD * np.sqrt(np.diag(population.covariance))
    return (means + rng.standard_normal(means.shape) * spread).astype(np.float32)


def train(latents: Tensor, targets: Tensor, steps: int) -> Screen:
    """Return a screen that draws the blocks `targets` (N, values) of latents (N, L)."""
    torch.set_num_threads(1)  # the network is small: threads would wait for each other
    screen = Screen(latents.shape[1], targets.shape[1])
    screen.mean.data = targets.mean(dim=0)
    optimiser = torch.optim.Adam(screen.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps)
    for _ in tqdm(range(steps), "training the screen", mininterval=2):
        rows = torch.randint(len(latents), (TRAINING_BATCH,))
        loss = (screen.blocks(latents[rows]) - targets[rows]).square().mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return screen.eval()


def verify(
    screen: Screen, networks: OnnxNetworks, population: Population, familiarity: Familiarity, cutoff: float
) -> None:
    """Compare the coarse errors of spoilt pictures with `cutoff`.

    Raises ScreenError where the check calls one foreign that the screen lets pass.
    """
    assert population.sample is not None, "only populations with a sample are drawn from"
    drawn = networks.decode(population.sample[: 2 * VERIFIED].astype(np.float32))
    for name, images in spoil(drawn).items():
        checked = networks.encode_checked(images)
        with torch.no_grad():
            coarse = screen(torch.from_numpy(images), torch.from_numpy(checked.latents[:, 0])).numpy()
        hidden = int(((checked.reconstruction_error > familiarity.limit) & (coarse <= cutoff)).sum())
        print(f"{name}: the screen leaves {(coarse > cutoff).mean():.1%} to be decoded", file=sys.stderr)
        if hidden:
            raise ScreenError(
                f"{hidden} of {len(images)} pictures, {name}, are foreign and pass the screen: train longer"
            )


def spoil(images: Images) -> dict[str, Images]:
    """Return images (n, H, W, C) as they are, and in ways that a model may not draw."""
    half = images.shape[2] // 2
    spliced = images.copy()
    spliced[:, :, half:] = np.roll(images, 1, axis=0)[:, :, half:]
    covered = images.copy()
    covered[:, :half] = 128
    return {
        "as drawn": images,
        "upside down": np.ascontiguousarray(images[:, ::-1]),
        "inverted": 255 - images,
        "spliced": spliced,
        "half covered": covered,
        "darkened": (images * np.float32(0.7)).astype(np.uint8),
        "moved": np.roll(images, 2, axis=2),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Add a screen to one bundle and return the exit code."""
    return add_to_bundle("python -m export.screen", __doc__.splitlines()[0], add_screen, "a screen", arguments)


if __name__ == "__main__":
    sys.exit(main())
