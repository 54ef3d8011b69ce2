"""Backbone bundles: a pretrained network's features, projected to latents, and measured properties beside them.

A content latent is linear in the pooled features, which are a mean over positions. So its heat map is exact: the
contributions of all positions add up to the latent (class activation mapping, Zhou et al. 2016).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.bundle.projection_file import Projection
from service.core.axes import directions, residuals
from service.core.types import Float32Array
from service.images import properties
from service.images.spec import Uint8Array


@dataclass(frozen=True)
class BackboneHead:
    """What comes after the backbone."""

    projection: Projection

    def project(
        self, images: Uint8Array, features: NDArray[np.float32], rows: int = 0
    ) -> tuple[Float32Array, Float32Array]:
        """Return latents (n, 2, L), mean and logvar, of images (n, H, W, 3) with features (n, C, h, w), and how far off
        the collection the content of each lies (n,): the squared distance of its direction, in reaches.

        The properties of files are not known here: see `with_files`. The products of matrices are of at least `rows`
        rows: the last bits of a row's result may depend on their number.
        """
        projection, count = self.projection, len(images)
        pooled, pixels = pad(pool(features), rows), pad(properties.measure_pixels(images), rows)
        files = projection.property_mean[pixels.shape[1] :]
        measured = np.hstack([pixels, np.broadcast_to(files, (len(pixels), len(files)))])
        off = residuals(directions(pooled), projection.direction, projection.principal) / projection.direction_reach
        return self.latents_of(pooled, measured)[:count], off[:count].astype(np.float32)

    def with_files(self, latents: Float32Array, sizes: NDArray[np.int64]) -> Float32Array:
        """Return latents (n, 2, L) with the properties of files of sizes (n, 2), width and height."""
        files, projection = properties.measure_files(sizes), self.projection
        count = files.shape[1]
        z = (files - projection.property_mean[-count:]) / projection.property_spread[-count:]
        return self.with_files_of(latents, z)

    def with_files_of(self, latents: Float32Array, means: NDArray[np.floating]) -> Float32Array:
        """Return latents (n, 2, L) with the properties of files that others have, whose means are (n, L) or the last of
        them. A picture that was drawn has no file.
        """
        count = len(properties.FILE_PROPERTIES)
        latents = latents.copy()
        latents[:, 0, -count:] = means[:, -count:]
        return latents

    def latents_of(self, pooled: NDArray[np.floating], measured: NDArray[np.floating]) -> Float32Array:
        """Return latents (n, 2, L) of pooled features (n, C) and measured properties (n, P)."""
        projection = self.projection
        content = (pooled - projection.mean) @ projection.axes
        means = np.hstack([content, (measured - projection.property_mean) / projection.property_spread])
        return np.stack([means, np.broadcast_to(projection.logvar, means.shape)], axis=1).astype(np.float32)

    def property_errors(self, latents: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the squared distance (n,), in reaches, of the property of latents (n, 2, L) that is furthest. A file
        of another shape or size is not foreign.
        """
        reach, count = self.projection.property_reach, len(properties.PIXEL_PROPERTIES)
        z = latents[:, 0, -len(reach) :] / reach
        return np.asarray(np.square(z[:, :count]).max(axis=1))

    def saliency(self, features: NDArray[np.float32]) -> Float32Array:
        """Return heat maps (n, L, h, w) of features (n, C, h, w). Properties are of the whole image: theirs are 0."""
        projection = self.projection
        n, _, height, width = features.shape
        centred = features - projection.mean[:, None, None].astype(np.float32)
        content = np.einsum("nchw,ck->nkhw", centred, projection.axes.astype(np.float32), optimize=True)
        measured = np.zeros((n, len(projection.property_mean), height, width), np.float32)
        return np.concatenate([content / (height * width), measured], axis=1).astype(np.float32)


def pad(array: NDArray[Any], rows: int) -> NDArray[Any]:
    """Return an array (n, ...) with rows of zeros added, up to `rows` rows."""
    missing = max(rows - len(array), 0)
    return np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)]) if missing else array


def pool(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the mean over positions, (n, C), of features (n, C, h, w)."""
    return np.asarray(features.mean(axis=(2, 3), dtype=np.float64))
