"""Reading two latents in one common context, by the edges of the decoded pictures.

The position and the direction of edges do not depend on the hues of a picture. So whether two latents mean the same
under all hues can be measured: the picture under its own hues has the same edges as some picture under the hues of a
reference, and the latents of that picture should be equal. Where contexts disagree, the reading in the best reference
replaces the latents. No labels are used.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from train.alignment.context_signs import Decode
from train.information import dependence
from train.models.inference import CHUNK

FAINT = 6 / 255  # change from a pixel to the next below which an edge hardly counts
CANDIDATES = 2_000
NEAREST = 4  # candidates whose mean is the reading
REFERENCES = 24
QUERIES = 1_000  # images that references are compared on
ELSEWHERE = 0.5  # standard deviations of a latent: read so far from where it is, it says something else


@dataclass(frozen=True)
class Reading:
    """The values of a pair of latents as read in the best reference context.

    values     (N, 2) of the pair whose picture has the most similar edges there
    distance   (N,)   between those edges and the image's own, in [0, 2]
    elsewhere  share of images whose values there differ from those in their own context
    """

    values: Tensor
    distance: Tensor
    elsewhere: float


def outlines(pictures: Tensor) -> Tensor:
    """Return edge descriptors (N, D) of pictures (N, C, H, W) in [0, 1]: position and direction, but not contrast.

    The descriptor is the structure tensor of all channels together (Di Zenzo 1986, "A note on the gradient of a
    multi-image"), divided by its trace, so that strong and weak edges count alike; averaged over 2x2 pixels and scaled
    to length 1.
    """
    across = (pictures[:, :, 1:-1, 2:] - pictures[:, :, 1:-1, :-2]) / 2
    down = (pictures[:, :, 2:, 1:-1] - pictures[:, :, :-2, 1:-1]) / 2
    horizontal, vertical, mixed = (
        product.sum(1, keepdim=True) for product in (across.square(), down.square(), across * down)
    )
    trace = horizontal + vertical
    edges = torch.cat([horizontal - vertical, 2 * mixed, trace], dim=1) / (trace + FAINT**2)
    return F.normalize(F.avg_pool2d(edges, 2).flatten(1), dim=1)


def read(decode: Decode, latents: Tensor, pair: tuple[int, int], context: tuple[int, ...]) -> Reading:
    """Read the latents `pair` of (N, L) in the best of several reference contexts; `context` are the latents that vary.

    The best reference is the one in which the two latents depend least on each other.
    """
    columns = list(pair)
    rest = [dim for dim in range(latents.shape[1]) if dim not in (*pair, *context)]
    among, asking, references = (torch.randperm(len(latents))[:count] for count in (CANDIDATES, QUERIES, REFERENCES))
    candidates = latents[among][:, columns]
    shown = latents.clone()
    shown[:, rest] = latents[references[0], rest]  # one and the same elsewhere, so that nothing else moves an edge

    def drawn_in(reference: int) -> Tensor:
        there = shown[reference].repeat(len(candidates), 1)
        there[:, columns] = candidates
        return _outlines_of(decode, there)

    asked = _outlines_of(decode, shown[asking])

    def entangled(reference: int) -> float:
        one, other = _nearest(asked, drawn_in(reference), candidates)[0].T
        return dependence(one.numpy(), other.numpy())

    best = min(references.tolist(), key=entangled)
    known = drawn_in(best)
    parts = [_nearest(_outlines_of(decode, part), known, candidates) for part in torch.split(shown, CHUNK)]
    values, distance = (torch.cat(column) for column in zip(*parts, strict=True))
    own = latents[:, columns]
    moved = ((values - own) / own.std(0)).abs().amax(1)
    return Reading(values, distance, float((moved > ELSEWHERE).float().mean()))


@torch.inference_mode()
def _outlines_of(decode: Decode, latents: Tensor) -> Tensor:
    return torch.cat([outlines(decode(part)) for part in torch.split(latents, CHUNK)])


def _nearest(asked: Tensor, known: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    distance, place = torch.cdist(asked, known).topk(min(NEAREST, len(candidates)), dim=1, largest=False)
    return candidates[place].mean(1), distance[:, 0]
