"""Compare what two latents mean under different hues, by the edges of the decoded pictures. No labels are used.

The position and direction of edges do not depend on hues. The edges of an image are therefore matched with those of
pictures that are decoded under the hues of one reference. If the two latents mean the same under all hues, the matched
pair equals the image's own pair. Where it does not, the matched values replace the latents.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from train.alignment.context_signs import Decode
from train.information import dependence
from train.models.inference import CHUNK

FAINT_CONTRAST = 6 / 255  # change from a pixel to the next below which an edge hardly counts
CANDIDATES = 2_000
NEAREST = 4  # candidates whose mean is the matched pair
REFERENCES = 24
QUERIES = 1_000  # images that references are compared on
MOVED = 0.5  # standard deviations between a latent and its matched value from which their meanings differ


@dataclass(frozen=True)
class EdgeMatch:
    """The values of a pair of latents by the best reference context.

    values       (N, 2) the pair whose picture there has the same edges
    distance     (N,)   between those edges and the image's own, in [0, 2]
    moved_share  share of images whose matched values differ by more than MOVED standard deviations from their own
    """

    values: Tensor
    distance: Tensor
    moved_share: float


def edge_features(pictures: Tensor) -> Tensor:
    """Return unit vectors (N, D) that describe the position and direction of edges in pictures (N, C, H, W) in [0, 1].

    The structure tensor of all channels together (Di Zenzo 1986, "A note on the gradient of a multi-image"), divided by
    its trace so that strong and weak edges count alike, averaged over 2x2 pixels.
    """
    across = (pictures[:, :, 1:-1, 2:] - pictures[:, :, 1:-1, :-2]) / 2
    down = (pictures[:, :, 2:, 1:-1] - pictures[:, :, :-2, 1:-1]) / 2
    horizontal, vertical, mixed = (
        product.sum(1, keepdim=True) for product in (across.square(), down.square(), across * down)
    )
    trace = horizontal + vertical
    edges = torch.cat([horizontal - vertical, 2 * mixed, trace], dim=1) / (trace + FAINT_CONTRAST**2)
    return F.normalize(F.avg_pool2d(edges, 2).flatten(1), dim=1)


def match_edges(decode: Decode, latents: Tensor, pair: tuple[int, int], context: tuple[int, ...]) -> EdgeMatch:
    """Match the latents `pair` of (N, L) with the best of several reference contexts, over the latents of `context`.

    The best reference is the one in which the mutual information of the two matched latents is lowest.
    """
    columns = list(pair)
    rest = [dim for dim in range(latents.shape[1]) if dim not in (*pair, *context)]
    among, asking, references = (torch.randperm(len(latents))[:count] for count in (CANDIDATES, QUERIES, REFERENCES))
    candidates = latents[among][:, columns]
    shown = latents.clone()
    shown[:, rest] = latents[references[0], rest]  # equal in all images, so that nothing else moves an edge

    def drawn_in(reference: int) -> Tensor:
        there = shown[reference].repeat(len(candidates), 1)
        there[:, columns] = candidates
        return _edge_features_of(decode, there)

    asked = _edge_features_of(decode, shown[asking])

    def dependence_in(reference: int) -> float:
        one, other = _nearest(asked, drawn_in(reference), candidates)[0].T
        return dependence(one.numpy(), other.numpy())

    best = min(references.tolist(), key=dependence_in)
    known = drawn_in(best)
    parts = [_nearest(_edge_features_of(decode, part), known, candidates) for part in torch.split(shown, CHUNK)]
    values, distance = (torch.cat(column) for column in zip(*parts, strict=True))
    own = latents[:, columns]
    moved = ((values - own) / own.std(0)).abs().amax(1)
    return EdgeMatch(values, distance, float((moved > MOVED).float().mean()))


@torch.inference_mode()
def _edge_features_of(decode: Decode, latents: Tensor) -> Tensor:
    return torch.cat([edge_features(decode(part)) for part in torch.split(latents, CHUNK)])


def _nearest(asked: Tensor, known: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    distance, place = torch.cdist(asked, known).topk(min(NEAREST, len(candidates)), dim=1, largest=False)
    return candidates[place].mean(1), distance[:, 0]
