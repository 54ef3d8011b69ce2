"""Which heat maps an explanation shows: of single latents, and of everything that a picture shows taken together.

A heat map says where in the image a sum over latents comes from. Of a single latent that is its own map. What a
photograph shows is spread over many latents that mean nothing one by one: its map adds up their shares of the squared
distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.core.latent import CONTENT, Latent
from service.core.types import BoolArray, Float64Array, IndexArray


@dataclass(frozen=True)
class MapPlan:
    """The t heat maps of each of m images.

    names    (L + 1,)   of the latents, and of all content latents together
    shown    (m, t)     what each map shows, as a place in `names`
    in_set   (m, t)     whether that is in the image's minimal set
    weights  (m, t, L)  what each latent's own map counts in it
    """

    names: Sequence[str]
    shown: IndexArray
    in_set: BoolArray
    weights: Float64Array


def plan_maps(
    order: IndexArray,
    repaired: BoolArray,
    signs: Float64Array,
    gradients: Float64Array,
    latents: Sequence[Latent],
    count: int,
) -> MapPlan:
    """Plan at most `count` maps of each of m images: those of the minimal set first, then those most to blame.

    order      (m, L)  latents, the most to blame first
    repaired   (m, L)  the minimal set
    signs      (m, L)  whether each latent is too far up (1) or down (-1)
    gradients  (m, L)  shares of the squared distance, as multiples of the latents' deviations

    Where there are content latents their sum comes first, and properties, which are of the whole image, get no map. Of
    a minimal set only the content latents that have a name of the owner's count by themselves.
    """
    dims = len(latents)
    is_content = np.array([latent.factor == CONTENT for latent in latents], dtype=bool)
    names = [*(latent.name for latent in latents), CONTENT]
    in_set = np.take_along_axis(repaired, order, axis=1)
    shown = np.take_along_axis(order, np.argsort(~in_set, axis=1, kind="stable"), axis=1)
    own = np.eye(dims + 1, dims) * signs[:, None, :]  # (m, L + 1, L)
    in_set = np.hstack([repaired, np.zeros((len(repaired), 1), dtype=bool)])
    if is_content.any():
        own[:, dims] = np.where(is_content, gradients, 0)
        is_named = np.array([latent.is_named for latent in latents], dtype=bool)
        in_set = np.hstack([repaired & is_named, (repaired & is_content).any(axis=1, keepdims=True)])
        whole = np.full((len(shown), 1), dims)
        shown = np.hstack([whole, shown[is_content[shown]].reshape(len(shown), is_content.sum())])
    shown = shown[:, :count]
    return MapPlan(
        names,
        shown,
        np.take_along_axis(in_set, shown, axis=1),
        np.take_along_axis(own, shown[:, :, None], axis=1),
    )


def compute_evidence(maps: NDArray[np.floating], weights: Float64Array) -> Float64Array:
    """Return where k images get what their t heat maps show from, (k, t, h, w); what speaks against it is left out.

    maps     (k, L, h, w)  of the latents, minus those of an image in the middle of the context
    weights  (k, t, L)
    """
    return np.asarray(np.maximum(np.einsum("ktl,klhw->kthw", weights, maps, optimize=True), 0))
