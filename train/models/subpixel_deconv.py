"""A transposed convolution computed as an ordinary one, which is faster on the CPU for few output channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class SubpixelConvTranspose2d(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` with kernel 4, stride 2 and padding 1, computed as a sub-pixel convolution.

    Even and odd output pixels of a row each depend on two input pixels of that row, through two of the kernel's four
    columns; the same holds for columns. One ordinary convolution with a 2x2 kernel computes all four phases as
    channels, and interleaving them gives the image (Shi et al. 2016, "Is the deconvolution layer the same as a
    convolutional layer?"). Parameters and results equal those of `nn.ConvTranspose2d`, up to rounding.
    """

    @classmethod
    def from_layer(cls, layer: nn.ConvTranspose2d) -> SubpixelConvTranspose2d:
        """Return `layer` as a sub-pixel convolution that shares its parameters. Raise ValueError for other shapes."""
        shape = (layer.kernel_size, layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation)
        if shape != ((4, 4), (2, 2), (1, 1), (0, 0), 1, (1, 1)) or layer.bias is None:
            raise ValueError(f"needs kernel 4, stride 2, padding 1 and a bias, got {layer}")
        phased = cls(layer.in_channels, layer.out_channels, 4, 2, 1, device="meta")
        phased.weight, phased.bias = layer.weight, layer.bias
        return phased

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return (N, O, 2H, 2W) of (N, I, H, W)."""
        assert self.bias is not None, "`from_layer` takes no layer without one"
        n, inputs, height, width = input.shape
        outputs = self.out_channels
        # Column 3 - 2t - a of the kernel is tap t, from left to right, of phase a.
        taps = self.weight.flip(2, 3).reshape(inputs, outputs, 2, 2, 2, 2)  # (I, O, tap, phase, tap, phase)
        kernel = taps.permute(3, 5, 1, 0, 2, 4).reshape(4 * outputs, inputs, 2, 2)
        phases = functional.conv2d(input, kernel, self.bias.repeat(4), padding=1)  # (N, 4 O, H + 1, W + 1)
        phases = phases.view(n, 2, 2, outputs, height + 1, width + 1)
        rows = [
            torch.stack([phases[:, row, column, :, row:, column:][..., :height, :width] for column in (0, 1)], dim=-1)
            for row in (0, 1)
        ]
        return torch.stack(rows, dim=3).reshape(n, outputs, 2 * height, 2 * width)


def use_subpixel_convolution(decoder: nn.Sequential) -> None:
    """Replace the decoder's last transposed convolution, if it has one, in place."""
    for place in reversed(range(len(decoder))):
        if isinstance(layer := decoder[place], nn.ConvTranspose2d):
            decoder[place] = SubpixelConvTranspose2d.from_layer(layer)
            return
