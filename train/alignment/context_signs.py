"""A latent whose sense changes from context to context, given one sense everywhere: without labels.

The objective does not see whether a latent grows with the size of an object under one wall colour and shrinks with it
under another: q(z) and the likelihood are the same. Such a *folded* latent still determines the picture, but only
together with the others, so that images alike in that respect lie in mirrored clumps, and an edit of the colour
also edits the size. Like a gauge in physics the choice is free in every context; here it is fixed so that

    the latent's effect on the picture, as a pattern over pixels, is the same in all contexts     (its sign)
    its mean size is the same in all contexts                                                     (its scale)

Patterns are compared by their cosine: how strongly a pixel changes says which colours meet there, where it changes
says what the latent does. The signs that pairs of contexts ask for are brought together by the eigenvector method for
synchronisation over Z2 (Singer 2011), with a network in place of the vector's entries.
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
    """No signs, one for each context, give this latent one sense."""


@dataclass(frozen=True)
class Pairs:
    """Latents before and after some of them came from other images, and whether a latent's sense outlived it.

    before, after  (n, L)
    agreement      (n,)   in [-1, 1]: cosine of the latent's effect before with that after, less that with its mirror
    swapped        (n, L) bool
    """

    before: Tensor
    after: Tensor
    agreement: Tensor
    swapped: Tensor

    def __getitem__(self, rows: slice) -> Pairs:
        return Pairs(self.before[rows], self.after[rows], self.agreement[rows], self.swapped[rows])


@dataclass(frozen=True)
class Gauge:
    """How a folded latent is read: z = sign(context) * scale(context, sign of v) * v, where v has one sense."""

    latent: int
    context: tuple[int, ...]
    sign: nn.Module
    scale: nn.Module

    @torch.no_grad()
    def fixed(self, latents: Tensor) -> Tensor:
        """v (N,) of latents (N, L)."""
        value = latents[:, self.latent] * self.signs(latents)
        return value / self._scales(latents, value)

    @torch.no_grad()
    def folded(self, fixed: Tensor, latents: Tensor) -> Tensor:
        """The latent (N,) that means `fixed` (N,) in the context of `latents` (N, L)."""
        return fixed * self._scales(latents, fixed) * self.signs(latents)

    @torch.no_grad()
    def signs(self, latents: Tensor) -> Tensor:
        """1 or -1 (N,), as latents (N, L) have the latent in this sense or in the other."""
        signs: Tensor = self.sign(latents[:, self.context]).squeeze(1)
        return torch.where(signs < 0, -1.0, 1.0)

    def _scales(self, latents: Tensor, value: Tensor) -> Tensor:
        return _scales(self.scale, latents[:, self.context], value)


def effect_agreement(decode: Decode, before: Tensor, after: Tensor, latent: int) -> Tensor:
    """(n,): whether `latent` does before (n, L) what it does after (1), or what its mirror image does (-1).

    The effect is the change of every pixel from where the latent is 0, summed over channels without sign.
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
    """`count` pairs of contexts for `latent`: one or two of the other live latents come from another image."""
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
    """Evidence that says "mirrored", per pair: near 0 for a latent with one sense."""
    return float(F.relu(-found.agreement).mean())


def explained_share(gauge: Gauge, found: Pairs) -> float:
    """How much of the evidence that says "mirrored" is gone, once the latent is read by this gauge."""
    agreement = found.agreement * gauge.signs(found.before) * gauge.signs(found.after)
    return 1 - mirrored_share(replace(found, agreement=agreement)) / mirrored_share(found)


def context_of(found: Pairs) -> tuple[int, ...]:
    """The latents that turn the sense: where they alone were swapped, "mirrored" has a share in the evidence."""
    context = []
    for dim in torch.where(found.swapped.any(0))[0].tolist():
        alone = found.swapped[:, dim] & (found.swapped.sum(1) == 1)
        evidence = found.agreement[alone]
        if F.relu(-evidence).sum() > CONTEXT_SHARE * evidence.abs().sum():
            context.append(dim)
    return tuple(context)


def fix(found: Pairs, latents: Tensor, latent: int, steps: int = 4_000) -> Gauge:
    """The gauge of `latent` from its pairs and from latents (N, L); raises NotFolded where it is not.

    Evidence for "mirrored" alone does not tell: to turn a hue round changes the same pixels, and small shapes look
    alike. Where a latent is folded, the signs fitted to some pairs account for it in the others as well.
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
    """Two hidden layers; `spread` is the standard deviation of the first, wide where the function has sharp edges."""
    first = nn.Linear(inputs, hidden)
    if spread is not None:
        nn.init.normal_(first.weight, std=spread)
        nn.init.normal_(first.bias, std=spread)
    return nn.Sequential(
        first, nn.LeakyReLU(SLOPE), nn.Linear(hidden, hidden), nn.LeakyReLU(SLOPE), nn.Linear(hidden, outputs)
    )


def _fit_sign(found: Pairs, context: tuple[int, ...], steps: int, batch: int = 1_024) -> nn.Module:
    """Rayleigh quotient first, which knows no saturated optimum; then tanh, which counts pairs as a sign does."""
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
    """The mean of |value| (N,) in its context (N, C), each side of 0 apart: maximum likelihood, exponential."""
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
