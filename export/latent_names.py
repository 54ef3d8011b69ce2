"""Names of the latents, derived from the factor that each shares the most information with."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import ArrayLike

from service.core.latent import Latent

# A latent bears a factor's name if it holds at least this share of the factor's entropy. A fifth is far above what
# an unrelated latent reaches by chance (under 1% at 10,000 images and 20 bins); for a factor of eight levels it
# is what a correlation of 0.75 with a Gaussian would carry: -log(1 - r^2) / 2 = log(8) / 5.
NAMED_SHARE = 0.2


def describe(
    latent_dim: int,
    live_dims: Collection[int],
    factors: Sequence[str],
    mutual_information: ArrayLike,
    factor_entropy: ArrayLike,
) -> tuple[Latent, ...]:
    """Return every latent with its name and, where it follows one, its factor.

    A live latent follows the factor that it shares the most information with, if that is at least NAMED_SHARE of the
    factor's entropy. Of several latents that follow one factor the most informative is named "object hue", the next
    "object hue 2". A live latent that follows none is "latent 7", and a dead one is "latent 7 (dead)".

    `mutual_information` (L, K) and `factor_entropy` (K,) are in nats; K is 0 where no factor is known. Raises
    ValueError where the shapes disagree.
    """
    information = np.asarray(mutual_information, dtype=np.float64).reshape(latent_dim, len(factors))
    entropy = np.asarray(factor_entropy, dtype=np.float64).reshape(len(factors))

    followed: dict[int, int] = {}
    for index in live_dims if factors else ():
        factor = int(information[index].argmax())
        if information[index, factor] > 0 and information[index, factor] >= NAMED_SHARE * entropy[factor]:
            followed[index] = factor

    names = {
        index: f"latent {index}" if index in live_dims else f"latent {index} (dead)" for index in range(latent_dim)
    }
    for factor, name in enumerate(factors):
        followers = sorted(
            (index for index in followed if followed[index] == factor),
            key=lambda index: (-information[index, factor], index),
        )
        names |= {index: name if rank == 1 else f"{name} {rank}" for rank, index in enumerate(followers, start=1)}

    return tuple(
        Latent(
            index=index,
            name=names[index],
            factor=factors[followed[index]] if index in followed else None,
            mutual_information=float(information[index, followed[index]]) if index in followed else None,
            dead=index not in live_dims,
        )
        for index in range(latent_dim)
    )
