"""A transposed convolution computed as an ordinary one, which is faster on the CPU for few output channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class PhasedConvTranspose2d(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` with kernel 4, stride 2 and padding 1, computed by sub-pixel convolution.

    The even and the odd output pixels of a row are two phases. A pixel of one phase reads two input pixels of that row
    through two of the kernel's four columns; the same holds for columns. One ordinary convolution with a 2x2 kernel
    computes all four phases as channels, and interleaving the phases gives the image (Shi et al. 2016, "Is the
    deconvolution layer the same as a convolutional layer?"). The parameters are those of the layer it replaces. The
    result equals that layer's up to rounding.
    """

    @classmethod
    def of(cls, layer: nn.ConvTranspose2d) -> PhasedConvTranspose2d:
        """Return `layer` computed by phases. The parameters are shared, not copied.

        Raises ValueError for any other kernel, stride, padding, group or dilation, and for a layer without bias.
        """
        shape = (layer.kernel_size, layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation)
        if shape != ((4, 4), (2, 2), (1, 1), (0, 0), 1, (1, 1)) or layer.bias is None:
            raise ValueError(f"needs kernel 4, stride 2, padding 1 and a bias, got {layer}")
        phased = cls(layer.in_channels, layer.out_channels, 4, 2, 1, device="meta")
        phased.weight, phased.bias = layer.weight, layer.bias
        return phased

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Map (N, I, H, W) to (N, O, 2H, 2W)."""
        assert self.bias is not None, "`of` takes no layer without one"
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


def with_phases(decoder: nn.Sequential) -> None:
    """Replace the decoder's last transposed convolution, if any, by PhasedConvTranspose2d, in place."""
    for place in reversed(range(len(decoder))):
        if isinstance(layer := decoder[place], nn.ConvTranspose2d):
            decoder[place] = PhasedConvTranspose2d.of(layer)
            return
