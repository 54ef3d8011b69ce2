"""An objective at one step: its schedules, its terms, and the loss that they add up to."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from train.config.experiment import BetaTCVAE, BetaVAE, CapacityVAE  # noqa: E402
from train.config.presets import PRESETS  # noqa: E402
from train.objectives.losses import kl_terms, kl_to_prior, reconstruction_nll  # noqa: E402
from train.objectives.schedule import ForwardPass, compute_loss, weights_at  # noqa: E402

POPULATION = 100


@pytest.fixture
def through() -> ForwardPass:
    generator = torch.Generator().manual_seed(0)
    mean, logvar, noise = torch.randn(3, 6, 4, generator=generator)
    images, logits = torch.rand(2, 6, 1, 3, 3, generator=generator)
    return ForwardPass(images, logits, mean + torch.exp(0.5 * logvar) * noise, mean, logvar)


def test_pressure_falls_geometrically_to_one():
    objective = BetaTCVAE(alpha=1, beta=6, gamma=2, pressure=16, pressure_steps=100)
    assert weights_at(objective, 0) == pytest.approx({"alpha": 16, "beta": 96, "gamma": 32})
    assert weights_at(objective, 50) == pytest.approx({"alpha": 4, "beta": 24, "gamma": 8})
    assert weights_at(objective, 100) == weights_at(objective, 900) == {"alpha": 1, "beta": 6, "gamma": 2}


def test_gamma_of_beta_tcvae_is_annealed_in():
    objective = BetaTCVAE(gamma_steps=100)
    assert [weights_at(objective, step)["gamma"] for step in (0, 25, 100, 500)] == [0, 0.25, 1, 1]


def test_capacity_grows_and_then_gamma_falls():
    """The schedule of dsprites_gamma_vae_cnn_decay: 10 until epoch 60, then linear to 2 at 100; 25 nats at 60."""
    objective = PRESETS["dsprites_gamma_vae_cnn_decay"]().objective
    at = {epoch: weights_at(objective, 500 * epoch) for epoch in (0, 30, 60, 80, 100)}
    assert [at[epoch]["capacity"] for epoch in at] == pytest.approx([0, 12.5, 25, 25, 25])
    assert [at[epoch]["gamma"] for epoch in at] == pytest.approx([10, 10, 10, 6, 2])
    constant = PRESETS["dsprites_gamma_vae_mlp"]().objective
    assert {weights_at(constant, step)["gamma"] for step in (0, 30_000, 40_000)} == {100.0}


def test_each_objective_is_its_formula(through):
    nll = reconstruction_nll(through.logits, through.images).item()
    kl = kl_to_prior(through.mean, through.logvar).sum().item()
    loss, terms, weights = compute_loss(BetaVAE(4.0), through, POPULATION, step=3)
    assert loss.item() == pytest.approx(nll + 4 * kl)
    assert (terms._fields, weights) == (("reconstruction_nll", "kl"), {"beta": 4.0})

    loss, terms, weights = compute_loss(CapacityVAE(10.0, 25.0, capacity_steps=100), through, POPULATION, step=40)
    assert weights == {"gamma": 10.0, "capacity": 10.0}
    assert loss.item() == pytest.approx(nll + 10 * abs(kl - 10))

    loss, terms, weights = compute_loss(BetaTCVAE(1.0, 6.0, 2.0), through, POPULATION, step=0)
    parts = kl_terms(through.latents, through.mean, through.logvar, POPULATION)
    expected = nll + sum(weight * part.item() for weight, part in zip((1, 6, 2), parts, strict=True))
    assert loss.item() == pytest.approx(expected)


@pytest.mark.parametrize("name", PRESETS)
def test_the_loss_of_every_preset_pulls_at_encoder_and_decoder(name, through):
    inputs = ForwardPass(through.images, *(part.clone().requires_grad_() for part in through[1:]))
    loss, _, _ = compute_loss(PRESETS[name]().objective, inputs, POPULATION, step=10)
    gradients = torch.autograd.grad(loss, (inputs.logits, inputs.mean, inputs.logvar))
    assert all(gradient.abs().max() > 0 for gradient in gradients)
