"""Linear layers that are refitted to new latents."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from train.alignment import refit_heads  # noqa: E402
from train.config.experiment import Network  # noqa: E402
from train.models.vae import VAE  # noqa: E402

SIDE = 16


def test_refitted_heads_give_the_targets(monkeypatch):
    monkeypatch.setattr(refit_heads, "HEAD_STEPS", 300)
    torch.manual_seed(0)
    model = VAE((SIDE, SIDE, 1), Network(channels=(4, 8), hidden=(32,), latent_dim=3))
    features = np.random.default_rng(0).standard_normal((1_000, 8 * 4 * 4)).astype(np.float16)
    mean = torch.from_numpy(features[:, :3].astype(np.float32))
    logvar = torch.full(mean.shape, -3.0)
    refit_heads.refit_encoder(model, features, mean, logvar, torch.ones(mean.shape))
    with torch.no_grad():
        told, spread = model.encoder[-3:](torch.from_numpy(features.astype(np.float32))).chunk(2, 1)
    assert (told - mean).abs().mean() < 0.4
    assert (spread - logvar).abs().mean() < 1.5

    hidden = mean[:, :1] * torch.randn(1, 8 * 4 * 4)
    refit_heads.refit_decoder(model, features, hidden)
    with torch.no_grad():
        made = model.decoder[:3](told)
    assert (made - hidden).square().mean() < 0.3 * hidden.var()
