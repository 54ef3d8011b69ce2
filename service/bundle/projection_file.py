"""projection.npz: how a backbone's features become latents. Every value is checked when the file is read."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from io import BytesIO

import numpy as np

from service.core.types import Float64Array
from service.errors import BundleCorrupt

PROJECTION = "projection.npz"


@dataclass(frozen=True)
class Projection:
    """Linear maps from the C pooled features and the P measured properties of an image to its K + P latents.

    mean, axes             (C,), (C, K)  content latents: (features - mean) @ axes
    direction, principal   (C,), (C, p)  the mean of the features' directions (length 1), and orthonormal axes of what
                                         these span: how far off an image lies from the collection
    property_mean, property_spread  (P,)  property latents: (property - mean) / spread
    logvar                 (K + P,)      how exactly each latent is known
    direction_reach        (1,)          squared distance from that span within which nearly all the collection lies
    property_reach         (P,)          how far nearly all of it lies from the mean of each property, in spreads
    """

    mean: Float64Array
    axes: Float64Array
    direction: Float64Array
    principal: Float64Array
    property_mean: Float64Array
    property_spread: Float64Array
    logvar: Float64Array
    direction_reach: Float64Array
    property_reach: Float64Array


def to_npz(projection: Projection) -> bytes:
    """Return the file's content, in float32."""
    buffer = BytesIO()
    np.savez(buffer, **{name: values.astype(np.float32) for name, values in vars(projection).items()})
    return buffer.getvalue()


def from_npz(content: bytes, latent_dim: int, properties: int) -> Projection:
    """Return the projection to `latent_dim` latents, `properties` of them measured, that the file holds.

    Raises BundleCorrupt unless every array is finite and of the right shape, and spreads and reaches are positive.
    """
    try:
        with np.load(BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name].astype(np.float64) for name in Projection.__dataclass_fields__}
    except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise BundleCorrupt(f"{PROJECTION} cannot be read: {error}.", "Learn the bundle again.") from error
    channels, span = len(np.atleast_1d(arrays["mean"])), arrays["principal"].shape[-1:]
    shapes = {
        "mean": (channels,),
        "axes": (channels, latent_dim - properties),
        "direction": (channels,),
        "principal": (channels, *span),
        "property_mean": (properties,),
        "property_spread": (properties,),
        "logvar": (latent_dim,),
        "direction_reach": (1,),
        "property_reach": (properties,),
    }
    for name, shape in shapes.items():
        if arrays[name].shape != shape or not np.isfinite(arrays[name]).all():
            raise BundleCorrupt(
                f"{PROJECTION}: {name} has shape {arrays[name].shape}, or values that are not finite; the manifest "
                f"calls for finite values of shape {shape}.",
                "Learn the bundle again.",
            )
    for name in ("property_spread", "direction_reach", "property_reach"):
        if (arrays[name] <= 0).any():
            raise BundleCorrupt(f"{PROJECTION}: {name} holds a value that is not positive.", "Learn the bundle again.")
    return Projection(**arrays)
