"""A beta-TCVAE over the frozen features of a backbone: latents of its own choice in place of principal axes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from train.objectives.losses import Terms, beta_tcvae, kl_terms

LATENTS, HIDDEN = 12, 256
STEPS, BATCH, RATE = 2_000, 256, 1e-3
ALPHA, BETA, GAMMA = 1.0, 4.0, 1.0


class FeatureVAE(nn.Module):
    """Pooled features (N, C) to latents (N, LATENTS) and back, with Gaussian features of variance 1."""

    mean: Tensor
    spread: Tensor

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", features.mean(dim=0))
        self.register_buffer("spread", features.std(dim=0).clamp_min(1e-6))
        channels = features.shape[1]
        self.encoder = nn.Sequential(nn.Linear(channels, HIDDEN), nn.LeakyReLU(), nn.Linear(HIDDEN, 2 * LATENTS))
        self.decoder = nn.Sequential(nn.Linear(LATENTS, HIDDEN), nn.LeakyReLU(), nn.Linear(HIDDEN, channels))

    def standardized(self, features: Tensor) -> Tensor:
        """Return features (N, C) in standard deviations of those that were learned."""
        return (features - self.mean) / self.spread

    def encode(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logvar, each (N, LATENTS), of features (N, C)."""
        mean, logvar = self.encoder(self.standardized(features)).chunk(2, dim=1)
        return mean, logvar


def fit(features: NDArray[np.float64], seed: int, steps: int) -> FeatureVAE:
    """Train on features (n, C)."""
    torch.manual_seed(seed)
    data = torch.from_numpy(features).float()
    model = FeatureVAE(data)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    for _ in range(steps):
        rows = data[torch.randint(len(data), (min(BATCH, len(data)),))]
        mean, logvar = model.encode(rows)
        latents = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        error = (model.decoder(latents) - model.standardized(rows)).square().sum(dim=1).mean() / 2
        terms = Terms(error, *kl_terms(latents, mean, logvar, len(data)))
        loss = beta_tcvae(terms, ALPHA, BETA, GAMMA)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


@torch.inference_mode()
def encode(model: FeatureVAE, features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return mean and logvar, (n, 2, LATENTS), of features (n, C)."""
    return torch.stack(model.encode(torch.from_numpy(features).float()), dim=1).double().numpy()
