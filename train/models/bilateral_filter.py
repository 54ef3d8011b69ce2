"""A bilateral filter as the last layer of a decoder, with learned parameters.

Transposed convolutions leave faint noise on plain surfaces. The likelihood hardly penalises it, and tens of thousands
of training steps remove little of it. An average over neighbours of nearly the same colour removes it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

RANGE = 14 / 255  # standard deviation of the weight over differences of colour, before it is learnt
NOWHERE = 100.0  # the colour beyond the picture's edge, so far from every other that it has no weight


class SeparableBilateral(nn.Module):
    """Bilateral filter (Tomasi & Manduchi 1998) of logits (N, C, H, W), along the rows, then along the columns.

    Each pixel becomes a weighted mean of itself and the `radius` pixels on either side. Weights fall with the distance
    and with the difference of colour; colours are the sigmoids of the logits, all channels together. Both weightings
    are learned. Two one-dimensional passes are far cheaper than the square window and smooth as well (Pham & van Vliet
    2005).
    """

    def __init__(self, radius: int) -> None:
        super().__init__()
        distances = torch.arange(1, radius + 1) / radius
        self.radius = radius
        self.nearness = nn.Parameter((-0.7 * distances.square()).repeat(2, 1))  # (axis, distance - 1), log weight
        self.sharpness = nn.Parameter(torch.full((2,), -math.log(2 * RANGE**2)))  # (axis,), log 1 / (2 range^2)

    def forward(self, logits: Tensor) -> Tensor:
        """Return filtered logits, float32 (N, C, H, W), of logits (N, C, H, W)."""
        filtered = logits.float().contiguous()
        for axis in (0, 1):
            filtered = self._along(3 - axis, filtered, self.nearness[axis], self.sharpness[axis].exp())
        return filtered

    def _along(self, dim: int, logits: Tensor, nearness: Tensor, sharpness: Tensor) -> Tensor:
        radius, size = self.radius, logits.shape[dim]
        margins = (radius, radius, 0, 0) if dim == 3 else (0, 0, radius, radius)
        values = functional.pad(logits, margins)
        colours = functional.pad(logits.sigmoid(), margins, value=NOWHERE)
        total, norm = logits, torch.ones_like(logits[:, :1])
        for distance in range(1, radius + 1):
            # `size + distance` pairs of pixels are this far apart and have at least one in the picture.
            ahead = colours.narrow(dim, radius, size + distance)
            behind = colours.narrow(dim, radius - distance, size + distance)
            difference = ahead - behind
            apart = (difference * difference).sum(1, keepdim=True)  # ONNX Runtime is slow at powers
            weight = torch.exp(nearness[distance - 1] - sharpness * apart)
            to_ahead, to_behind = weight.narrow(dim, distance, size), weight.narrow(dim, 0, size)
            total = total + to_ahead * values.narrow(dim, radius + distance, size)
            total = total + to_behind * values.narrow(dim, radius - distance, size)
            norm = norm + to_ahead + to_behind
        return total / norm
