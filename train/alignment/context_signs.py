"""Signs and scales by context: give a latent whose sign depends on the context the same meaning in all contexts.

The objective does not distinguish a latent that grows with the size of an object under every wall colour from one that
grows under some colours and shrinks under others: q(z) and the likelihood are the same. Such a *folded* latent still
determines the picture, but only together with the others. Images of the same size then lie in mirrored clusters, and an
edit of the colour also changes the size. The sign and the scale are free in every context. They are chosen so that

    the latent's effect on the picture, as a pattern over pixels, is the same in all contexts     (its sign)
    its mean absolute value is the same in all contexts                                           (its scale)

Patterns are compared by their cosine. The strength of a pixel's change depends on the colours that meet there; its
place depends on the latent. Each pair of contexts asks for equal or opposite signs. The signs are found by the
eigenvector method for synchronisation over Z2 (Singer 2011), with a network in place of the eigenvector's entries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Decode = Callable[[Tensor], Tensor]  # latents (N, L) -> images (N, C, H, W) in [0, 1]
SLOPE = 0.2
MIRRORED_SHARE = 0.01  # evidence per pair, below which a latent cannot be folded; one of one sense may have twice that
EXPLAINED_SHARE = 0.5  # of that evidence, at least, that signs do away with where a latent is folded
TESTED_SHARE = 1 / 8  # of the pairs, which signs are not fitted to but tested on
CONTEXT_SHARE = 0.05  # of the evidence for a latent, at least, that says "mirrored": then it belongs to the context
SHARPNESS = 3.0
SCALE_JITTER = 0.03


class NotFolded(ValueError):
    """No assignment of signs to contexts makes this latent consistent."""


@dataclass(frozen=True)
class Pairs:
    """Latents before and after some of them were swapped for another image's, and whether a latent kept its sign.

    before, after  (n, L)
    agreement      (n,)   in [-1, 1]: cosine of the latent's effect before with its effect after, less the cosine
                          with the effect of its mirror image after
    swapped        (n, L) bool, the latents that came from the other image
    """

    before: Tensor
    after: Tensor
    agreement: Tensor
    swapped: Tensor

    def __getitem__(self, rows: slice) -> Pairs:
        return Pairs(self.before[rows], self.after[rows], self.agreement[rows], self.swapped[rows])


@dataclass(frozen=True)
class Gauge:
    """The sign and scale of a folded latent: z = sign(context) * scale(context, sign of v) * v, with v consistent."""

    latent: int
    context: tuple[int, ...]
    sign: nn.Module
    scale: nn.Module

    @torch.no_grad()
    def fixed(self, latents: Tensor) -> Tensor:
        """Return the consistent value v (N,) of latents (N, L)."""
        value = latents[:, self.latent] * self.signs(latents)
        return value / self._scales(latents, value)

    @torch.no_grad()
    def folded(self, fixed: Tensor, latents: Tensor) -> Tensor:
        """Return the latent (N,) that has the consistent value `fixed` (N,) in the context of `latents` (N, L)."""
        return fixed * self._scales(latents, fixed) * self.signs(latents)

    @torch.no_grad()
    def signs(self, latents: Tensor) -> Tensor:
        """Return the sign (N,), 1 or -1, of the latent in the context of latents (N, L)."""
        signs: Tensor = self.sign(latents[:, self.context]).squeeze(1)
        return torch.where(signs < 0, -1.0, 1.0)

    def _scales(self, latents: Tensor, value: Tensor) -> Tensor:
        return _scales(self.scale, latents[:, self.context], value)


def effect_agreement(decode: Decode, before: Tensor, after: Tensor, latent: int) -> Tensor:
    """Return (n,) in [-1, 1]: 1 where `latent` has the same effect before and after (n, L), -1 where it is mirrored.

    The effect is the absolute change of every pixel from the picture with the latent at 0, summed over channels.
    """
    mirrored = after.clone()
    mirrored[:, latent] *= -1
    zero_before, zero_after = before.clone(), after.clone()
    zero_before[:, latent] = zero_after[:, latent] = 0
    shown, without, same, without_after, other = decode(
        torch.cat([before, zero_before, after, zero_after, mirrored])
    ).chunk(5)
    effect, effect_same, effect_other = (
        (picture - rest).abs().sum(1).flatten(1)
        for picture, rest in ((shown, without), (same, without_after), (other, without_after))
    )
    return F.cosine_similarity(effect, effect_same) - F.cosine_similarity(effect, effect_other)


@torch.inference_mode()
def pairs(decode: Decode, latents: Tensor, live: list[int], latent: int, count: int, chunk: int = 200) -> Pairs:
    """Return `count` pairs of contexts for `latent`: one or two of the other live latents come from another image."""
    others = torch.tensor([dim for dim in live if dim != latent])
    strong = torch.where(latents[:, latent].abs() > 0.25 * latents[:, latent].std())[0]
    before = latents[strong[torch.randint(len(strong), (count,))]]
    donors = latents[torch.randint(len(latents), (count,))]
    swapped = torch.zeros(before.shape, dtype=torch.bool)
    for _ in range(2):
        swapped[torch.arange(count), others[torch.randint(len(others), (count,))]] = True
    after = torch.where(swapped, donors, before)
    agreement = [
        effect_agreement(decode, before[start : start + chunk], after[start : start + chunk], latent)
        for start in range(0, count, chunk)
    ]
    return Pairs(before, after, torch.cat(agreement), swapped)


def mirrored_share(found: Pairs) -> float:
    """Return the mean evidence per pair for a change of sign: near 0 for a consistent latent."""
    return float(F.relu(-found.agreement).mean())


def explained_share(gauge: Gauge, found: Pairs) -> float:
    """Return the share of the evidence for a change of sign that these signs remove."""
    agreement = found.agreement * gauge.signs(found.before) * gauge.signs(found.after)
    return 1 - mirrored_share(replace(found, agreement=agreement)) / mirrored_share(found)


def context_of(found: Pairs) -> tuple[int, ...]:
    """Return the latents on which the sign depends.

    A latent counts where swapping it alone gives more than CONTEXT_SHARE of the evidence for a change of sign.
    """
    context = []
    for dim in torch.where(found.swapped.any(0))[0].tolist():
        alone = found.swapped[:, dim] & (found.swapped.sum(1) == 1)
        evidence = found.agreement[alone]
        if F.relu(-evidence).sum() > CONTEXT_SHARE * evidence.abs().sum():
            context.append(dim)
    return tuple(context)


def fix(found: Pairs, latents: Tensor, latent: int, steps: int = 4_000) -> Gauge:
    """Fit sign and scale of `latent` by context, from its pairs and from latents (N, L).

    Raises NotFolded where the latent is consistent. Evidence for a change of sign alone does not decide: a change of
    hue affects the same pixels, and small shapes look alike. The signs are fitted to some pairs and must explain the
    evidence in the others as well.
    """
    context = context_of(found)
    if not context or mirrored_share(found) < MIRRORED_SHARE:
        raise NotFolded(f"latent {latent} is not folded: no other latent turns its sense")
    fitted = len(found.agreement) - round(TESTED_SHARE * len(found.agreement))
    unscaled = Gauge(latent, context, _fit_sign(found[:fitted], context, steps), _Ones())
    explained = explained_share(unscaled, found[fitted:])
    if explained < EXPLAINED_SHARE:
        raise NotFolded(f"latent {latent} is not folded: signs explain {explained:.0%} of what looks mirrored")
    sign = unscaled.sign
    return Gauge(latent, context, sign, _fit_scale(unscaled.fixed(latents), latents[:, context], steps))


def perceptron(inputs: int, outputs: int, hidden: int = 64, spread: float | None = None) -> nn.Sequential:
    """Return a perceptron of two hidden layers.

    `spread` is the standard deviation of the first layer's initial weights. It is wide for functions with sharp edges.
    """
    first = nn.Linear(inputs, hidden)
    if spread is not None:
        nn.init.normal_(first.weight, std=spread)
        nn.init.normal_(first.bias, std=spread)
    return nn.Sequential(
        first, nn.LeakyReLU(SLOPE), nn.Linear(hidden, hidden), nn.LeakyReLU(SLOPE), nn.Linear(hidden, outputs)
    )


def _fit_sign(found: Pairs, context: tuple[int, ...], steps: int, batch: int = 1_024) -> nn.Module:
    """Fit the sign network by stochastic gradient descent, in two halves.

    The first half minimises the Rayleigh quotient, which has no saturated optimum. The second takes tanh of the
    outputs, which weights pairs as signs do.
    """
    net = perceptron(len(context), 1, spread=1.0)
    weight = found.agreement / found.agreement.abs().mean()
    before, after = found.before[:, context], found.after[:, context]
    optimizer, schedule = _descent(net, 3e-3, steps)
    for step in range(steps):
        drawn = torch.randint(len(weight), (batch,))
        one, other = (net(side[drawn]).squeeze(1) for side in (before, after))
        if step < steps // 2:
            degree = weight[drawn].abs()
            loss = -(weight[drawn] * one * other).mean() / (degree * (one.square() + other.square()) / 2).mean()
        else:
            if step == steps // 2:
                size = one.detach().square().mean().sqrt()
            loss = -(weight[drawn] * torch.tanh(SHARPNESS * one / size) * torch.tanh(SHARPNESS * other / size)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net


def _fit_scale(value: Tensor, context: Tensor, steps: int, batch: int = 1_024) -> nn.Module:
    """Fit the mean of |value| (N,) given context (N, C) and sign: maximum likelihood, exponential."""
    net = perceptron(context.shape[1] + 1, 1, hidden=128, spread=2.0)
    optimizer, schedule = _descent(net, 3e-3, steps)
    for _ in range(steps):
        drawn = torch.randint(len(value), (batch,))
        around = context[drawn] + SCALE_JITTER * torch.randn(batch, context.shape[1])
        scale = _scales(net, around, value[drawn])
        loss = (torch.log(scale) + value[drawn].abs() / scale).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return net


def _scales(net: nn.Module, context: Tensor, value: Tensor) -> Tensor:
    side = torch.where(value < 0, -1.0, 1.0)
    log_scale: Tensor = net(torch.cat([context, side[:, None]], dim=1)).squeeze(1)
    return torch.exp(log_scale)


def _descent(
    net: nn.Module, rate: float, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)


class _Ones(nn.Module):
    def forward(self, rows: Tensor) -> Tensor:
        return torch.zeros(len(rows), 1)  # the logarithm of 1
