from __future__ import annotations

from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")

from train.config.experiment import Network  # noqa: E402
from train.config.presets import PRESETS  # noqa: E402
from train.models.net2net import double_width, half_width  # noqa: E402
from train.models.subpixel_deconv import SubpixelConvTranspose2d, use_subpixel_convolution  # noqa: E402
from train.models.vae import VAE  # noqa: E402

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


def widths(stack, kind):
    names = ("in_channels", "out_channels") if kind is not torch.nn.Linear else ("in_features", "out_features")
    return [tuple(getattr(layer, name) for name in names) for layer in stack if isinstance(layer, kind)]


def test_the_perceptrons_are_the_agreed_ones():
    mnist = VAE((28, 28, 1), PRESETS["mnist_vae"]().network)
    assert widths(mnist.encoder, torch.nn.Linear) == [(784, 400), (400, 40)]
    assert widths(mnist.decoder, torch.nn.Linear) == [(20, 400), (400, 784)]
    sprites = VAE((64, 64, 1), PRESETS["dsprites_beta_vae_4"]().network)
    assert widths(sprites.encoder, torch.nn.Linear) == [(4096, 1024), (1024, 256), (256, 64), (64, 20)]
    assert widths(sprites.decoder, torch.nn.Linear) == [(10, 64), (64, 256), (256, 1024), (1024, 4096)]
    assert {layer.negative_slope for layer in sprites.encoder if isinstance(layer, torch.nn.LeakyReLU)} == {0.0}
    assert not any(isinstance(layer, torch.nn.Conv2d) for layer in sprites.modules())


def test_the_convolutional_networks_of_dsprites_are_the_agreed_ones():
    for name, hidden in (("dsprites_gamma_vae_cnn", (256, 64)), ("dsprites_beta_tcvae", (256,))):
        model = VAE((64, 64, 1), PRESETS[name]().network)
        units = (512, *hidden)
        assert widths(model.encoder, torch.nn.Conv2d) == [(1, 32), (32, 32), (32, 32), (32, 32)]
        assert widths(model.encoder, torch.nn.Linear) == [*pairwise(units), (units[-1], 20)]
        assert widths(model.decoder, torch.nn.Linear) == [*pairwise((10, *units[::-1]))]
        assert widths(model.decoder, torch.nn.ConvTranspose2d) == [(32, 32), (32, 32), (32, 32), (32, 1)]


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "folder"])
def test_every_network_takes_and_gives_its_data_sets_images(name):
    preset = PRESETS[name]()
    shape = {"mnist": (28, 28, 1), "dsprites": (64, 64, 1), "shapes3d": (64, 64, 3)}[preset.dataset]
    model = VAE(shape, preset.network)
    mean, logvar = model.encode(torch.rand(2, shape[2], *shape[:2]))
    assert mean.shape == logvar.shape == (2, preset.network.latent_dim)
    assert model.decode(mean).shape == (2, shape[2], *shape[:2])


@pytest.mark.parametrize("shape", [(16, 16, 3), (8, 24, 1)])
def test_a_decoder_by_phases_is_the_same_decoder(shape):
    torch.manual_seed(0)
    plain, phased = VAE(shape, NETWORK), VAE(shape, NETWORK)
    phased.load_state_dict(plain.state_dict())
    use_subpixel_convolution(phased.decoder)
    assert isinstance(phased.decoder[-1], SubpixelConvTranspose2d)
    latents, weights = torch.randn(5, 3), torch.rand(5, shape[2], *shape[:2])
    for model in (plain, phased):
        (model.decode(latents) * weights).sum().backward()
    torch.testing.assert_close(phased.decode(latents), plain.decode(latents))
    for (name, ours), (other, theirs) in zip(
        phased.decoder.named_parameters(), plain.decoder.named_parameters(), strict=True
    ):
        assert name == other, "checkpoints fit both"
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_the_layer_by_phases_need_not_be_the_last():
    decoder = VAE((16, 16, 3), NETWORK).decoder
    decoder.append(torch.nn.Identity())
    use_subpixel_convolution(decoder)
    assert [isinstance(layer, SubpixelConvTranspose2d) for layer in decoder][-2:] == [True, False]


def test_other_transposed_convolutions_are_not_taken_by_phases():
    with pytest.raises(ValueError, match="kernel 4, stride 2, padding 1"):
        SubpixelConvTranspose2d.from_layer(torch.nn.ConvTranspose2d(3, 3, 3, 2, 1))
