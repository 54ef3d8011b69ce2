from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from train.networks import VAE, double_width, half_width  # noqa: E402
from train.presets import Network  # noqa: E402

NETWORK = Network(channels=(8, 16), hidden=(12,), latent_dim=3)


@pytest.mark.parametrize("shape", [(16, 16, 3), (8, 24, 1)])
def test_shapes(shape):
    height, width, channels = shape
    model = VAE(shape, NETWORK)
    mean, logvar = model.encode(torch.rand(5, channels, height, width))
    assert mean.shape == logvar.shape == (5, 3)
    assert model.decode(mean).shape == (5, channels, height, width)


def test_the_flagship_is_the_agreed_network():
    model = VAE((64, 64, 3), Network())
    widths = [(layer.in_channels, layer.out_channels) for layer in model.encoder if isinstance(layer, torch.nn.Conv2d)]
    assert widths == [(3, 32), (32, 64), (64, 128), (128, 256)]
    linear = [(layer.in_features, layer.out_features) for layer in model.encoder if isinstance(layer, torch.nn.Linear)]
    assert linear == [(4096, 256), (256, 24)]


def test_sizes_that_the_strides_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="multiples of 4"):
        VAE((18, 16, 3), NETWORK)


def test_doubling_the_width_keeps_the_function_and_lets_the_copies_differ():
    torch.manual_seed(0)
    images, latents = torch.rand(4, 3, 16, 16), torch.randn(4, 3)
    narrow = VAE((16, 16, 3), half_width(NETWORK))
    wide = double_width(narrow, NETWORK)
    torch.testing.assert_close(wide.encode(images), narrow.encode(images), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(wide.decode(latents), narrow.decode(latents), rtol=1e-5, atol=1e-6)

    sum(part.square().sum() for part in (*wide.encode(images), wide.decode(latents))).backward()
    gradient = wide.encoder[0].weight.grad
    first, second = gradient.chunk(2)
    assert not torch.allclose(first, second), "equal gradients would keep the copies equal for ever"
