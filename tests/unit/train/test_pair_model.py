"""New latents that are fitted to pictures of two factors."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from train.alignment import pair_model  # noqa: E402
from train.config.experiment import BetaTCVAE  # noqa: E402


def test_new_latents_of_a_grid_of_pictures_take_one_factor_each(monkeypatch):
    monkeypatch.setattr(pair_model, "LATENT_STEPS", 600)
    monkeypatch.setattr(pair_model, "PRESSURE_STEPS", 300)
    monkeypatch.setattr(pair_model, "COORDINATES", 2)
    factors = torch.stack([torch.randint(5, (3_000,)), torch.randint(3, (3_000,))], dim=1)
    coordinates = factors.float() * torch.tensor([2.0, 1.0]) - 2
    best = min(
        (pair_model.fit_pair(coordinates, BetaTCVAE(), seed) for seed in range(3)),
        key=lambda pair: pair.objective,
    )
    mean, logvar = best.encode(coordinates)
    correlation = np.abs(np.corrcoef(mean.T.numpy(), factors.T.numpy())[:2, 2:])
    assert np.sort(correlation.max(0))[0] > 0.9
    assert np.sort(correlation.min(0))[1] < 0.3
    assert logvar.max() <= 0
