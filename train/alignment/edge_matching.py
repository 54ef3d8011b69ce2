"""What two latents say, read in one context for all: by the outlines of what they show.

Where the edges of a picture lie and which way they run does not hang on its hues. So whether two latents mean the same
under all hues can be seen: their picture under its own hues has the outlines of some picture under the hues of a
reference, and the pair that draws that one should be their own. Where contexts disagree, the reading of the best
reference replaces what the latents were. Nothing here looks at a label.
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
    """What a pair of latents says in the best context.

    values     (N, 2) the pair that draws the same outlines there
    distance   (N,)   of those outlines from the image's own, in [0, 2]
    elsewhere  share of images that say something else there than in their own context
    """

    values: Tensor
    distance: Tensor
    elsewhere: float


def outlines(pictures: Tensor) -> Tensor:
    """(N, D) of pictures (N, C, H, W) in [0, 1]: where edges lie and which way they run, whatever their contrast.

    The structure tensor of all channels together (Di Zenzo 1986, "A note on the gradient of a multi-image"), over its
    trace, so that a strong edge counts no more than a weak one; mean of 2x2 pixels, scaled to length 1.
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
    """What the latents `pair` of (N, L) say, whatever those of `context` are: read by the best of several references.

    The best is where the two depend least on each other: there the pair has the least of a fold.
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
