"""The structural similarity index (SSIM) as a differentiable function of torch tensors, for use in a loss."""

from __future__ import annotations

import torch
from torch import Tensor

# The side of the window in pixels, and the constants of Wang et al. 2004 for values in [0, 1].
WINDOW, C1, C2 = 7, 0.01**2, 0.03**2


def structural_similarity(images: Tensor, reconstructions: Tensor) -> Tensor:
    """Return the SSIM (Wang et al. 2004, eq. 13), averaged over all windows and the batch.

    Both arguments are (M, C, H, W) in [0, 1]. Windows are uniform, 7x7, one channel each; (co)variances are sample
    estimates. `train.evaluation.mig.ssim` uses the same definition. Raises ValueError where a side is shorter than a
    window.
    """
    height, width = images.shape[2:]
    if min(height, width) < WINDOW:
        raise ValueError(f"images of {height}x{width} are smaller than SSIM's window of {WINDOW}x{WINDOW}")
    down, across = (_windows(side, images) for side in (height, width))

    def mean_of(values: Tensor) -> Tensor:
        return down @ values @ across.T

    centre, drawn_centre = mean_of(images), mean_of(reconstructions)
    unbiased = WINDOW**2 / (WINDOW**2 - 1)
    variance = unbiased * (mean_of(images.square()) - centre.square())
    drawn_variance = unbiased * (mean_of(reconstructions.square()) - drawn_centre.square())
    covariance = unbiased * (mean_of(images * reconstructions) - centre * drawn_centre)
    luminance = (2 * centre * drawn_centre + C1) / (centre.square() + drawn_centre.square() + C1)
    return (luminance * (2 * covariance + C2) / (variance + drawn_variance + C2)).mean()


def _windows(side: int, like: Tensor) -> Tensor:
    """Return the averaging matrix (side - WINDOW + 1, side), one row per window.

    Multiplying by this matrix takes a quarter of the time of pooling.
    """
    starts = torch.arange(side - WINDOW + 1, device=like.device)[:, None]
    offsets = torch.arange(side, device=like.device) - starts
    return ((offsets >= 0) & (offsets < WINDOW)).to(like.dtype) / WINDOW
