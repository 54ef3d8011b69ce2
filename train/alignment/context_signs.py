"""Estimate the sign and scale of a latent in every context, without labels.

The objective of a VAE does not fix the sign of a latent in each context. A latent may grow with the size of an object
under one wall colour and shrink with it under another: q(z) and the likelihood are the same. Such a latent is called
*folded*. Images that are alike in that respect then lie in mirrored clusters, and an edit of the colour also edits the
size. The sign and the scale are chosen so that in all contexts

    the latent's effect on the picture, as a pattern over pixels, is the same     (sign)
    its mean absolute value is the same                                           (scale)

Patterns are compared by their cosine similarity, which ignores how strong the change is. The signs that pairs of
contexts require are combined by the eigenvector method for synchronisation over Z2 (Singer 2011), with a network in
place of the eigenvector's entries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Decode = Callable[[Tensor], Tensor]  # latents (N, L) -> images (N, C, H, W) in [0, 1]
SLOPE = 0.2
MIRRORED_SHARE = 0.01  # evidence per pair of a folded latent, at least; a latent that is not folded may have twice that
EXPLAINED_SHARE = 0.5  # share of that evidence that signs explain where a latent is folded, at least
TESTED_SHARE = 1 / 8  # share of the pairs that signs are tested on; they are fitted to the rest
CONTEXT_SHARE = 0.05  # share of a latent's evidence that is mirrored, from which it belongs to the context
SHARPNESS = 3.0
SCALE_JITTER = 0.03


class NotFolded(ValueError):
    """Raised where no choice of one sign per context makes the effect of a latent consistent."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of latents that differ in their context, and how well the effect of one latent agrees between the two.

    before, after  (n, L) latents, before and after some of them were replaced by those of other images
    agreement      (n,)   in [-1, 1]: cosine similarity of the effects before and after, less that with the mirror image
    swapped        (n, L) bool, the latents that were replaced
    """

    before: Tensor
    after: Tensor
    agreement: Tensor
    swapped: Tensor

    def __getitem__(self, rows: slice) -> Pairs:
        return Pairs(self.before[rows], self.after[rows], self.agreement[rows], self.swapped[rows])


@dataclass(frozen=True)
class ContextSigns:
    """The sign and scale of latent z in every context: z = sign(context) * scale(context, sign of v) * v.

    The aligned value v has the same meaning in all contexts. `context` holds the indices of the latents that the sign
    depends on.
    """

    latent: int
    context: tuple[int, ...]
    sign: nn.Module
    scale: nn.Module

    @torch.no_grad()
    def align(self, latents: Tensor) -> Tensor:
        """Return the aligned value v (N,) of latents (N, L)."""
        value = latents[:, self.latent] * self.signs(latents)
        return value / self._scales(latents, value)

    @torch.no_grad()
    def unalign(self, aligned: Tensor, latents: Tensor) -> Tensor:
        """Return the latent (N,) whose aligned value is `aligned` (N,) in the context of latents (N, L)."""
        return aligned * self._scales(latents, aligned) * self.signs(latents)

    @torch.no_grad()
    def signs(self, latents: Tensor) -> Tensor:
        """Return the sign, 1 or -1, (N,) of the latent in the context of latents (N, L)."""
        signs: Tensor = self.sign(latents[:, self.context]).squeeze(1)
        return torch.where(signs < 0, -1.0, 1.0)

    def _scales(self, latents: Tensor, value: Tensor) -> Tensor:
        return _scales(self.scale, latents[:, self.context], value)


def effect_agreement(decode: Decode, before: Tensor, after: Tensor, latent: int) -> Tensor:
    """Return how well the effect of `latent` agrees in `before` and `after` (n, L), (n,): 1 the same, -1 mirrored.

    The effect is the absolute change of every pixel against the same latents with `latent` at 0, summed over channels.
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
def sample_pairs(decode: Decode, latents: Tensor, live: list[int], latent: int, count: int, chunk: int = 200) -> Pairs:
    """Return `count` pairs of contexts for `latent`.

    Each pair replaces one or two of the other live latents by those of another image.
    """
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


def mirrored_share(pairs: Pairs) -> float:
    """Return the mean evidence for a mirrored effect per pair. It is near 0 for a latent that is not folded."""
    return float(F.relu(-pairs.agreement).mean())


def explained_share(signs: ContextSigns, pairs: Pairs) -> float:
    """Return the share of the evidence for mirrored effects that disappears once `signs` are applied."""
    agreement = pairs.agreement * signs.signs(pairs.before) * signs.signs(pairs.after)
    return 1 - mirrored_share(replace(pairs, agreement=agreement)) / mirrored_share(pairs)


def find_context(pairs: Pairs) -> tuple[int, ...]:
    """Return the latents that change the sign.

    A latent belongs to the context if, in pairs where it alone was swapped, at least CONTEXT_SHARE of the evidence is
    for a mirrored effect.
    """
    context = []
    for dim in torch.where(pairs.swapped.any(0))[0].tolist():
        alone = pairs.swapped[:, dim] & (pairs.swapped.sum(1) == 1)
        evidence = pairs.agreement[alone]
        if F.relu(-evidence).sum() > CONTEXT_SHARE * evidence.abs().sum():
            context.append(dim)
    return tuple(context)


def fit_signs(pairs: Pairs, latents: Tensor, latent: int, steps: int = 4_000) -> ContextSigns:
    """Fit the signs and scales of `latent` to its pairs and to latents (N, L). Raise NotFolded where it is not folded.

    Evidence for mirrored effects is not enough: a turned hue changes the same pixels, and small shapes look alike. The
    latent is folded where signs that are fitted to some pairs also explain the other pairs.
    """
    context = find_context(pairs)
    if not context or mirrored_share(pairs) < MIRRORED_SHARE:
        raise NotFolded(f"latent {latent} is not folded: no other latent turns its sense")
    fitted = len(pairs.agreement) - round(TESTED_SHARE * len(pairs.agreement))
    unscaled = ContextSigns(latent, context, _fit_sign(pairs[:fitted], context, steps), _Ones())
    explained = explained_share(unscaled, pairs[fitted:])
    if explained < EXPLAINED_SHARE:
        raise NotFolded(f"latent {latent} is not folded: signs explain {explained:.0%} of what looks mirrored")
    sign = unscaled.sign
    return ContextSigns(latent, context, sign, _fit_scale(unscaled.align(latents), latents[:, context], steps))


def build_mlp(inputs: int, outputs: int, hidden: int = 64, spread: float | None = None) -> nn.Sequential:
    """Return a perceptron with two hidden layers.

    `spread` is the standard deviation of the first layer's weights: large where the function has sharp edges.
    """
    first = nn.Linear(inputs, hidden)
    if spread is not None:
        nn.init.normal_(first.weight, std=spread)
        nn.init.normal_(first.bias, std=spread)
    return nn.Sequential(
        first, nn.LeakyReLU(SLOPE), nn.Linear(hidden, hidden), nn.LeakyReLU(SLOPE), nn.Linear(hidden, outputs)
    )


def _fit_sign(pairs: Pairs, context: tuple[int, ...], steps: int, batch: int = 1_024) -> nn.Module:
    """Fit the network whose output has the sign of each context.

    The first half of the steps maximises a Rayleigh quotient, which has no saturated optima. The second half maximises
    the same agreement through tanh, so that each pair counts as much as its sign does.
    """
    net = build_mlp(len(context), 1, spread=1.0)
    weight = pairs.agreement / pairs.agreement.abs().mean()
    before, after = pairs.before[:, context], pairs.after[:, context]
    optimizer, schedule = _build_optimizer(net, 3e-3, steps)
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
    """Fit the mean of |value| (N,) in its context (N, C), for positive and negative values apart.

    Maximum likelihood of an exponential distribution.
    """
    net = build_mlp(context.shape[1] + 1, 1, hidden=128, spread=2.0)
    optimizer, schedule = _build_optimizer(net, 3e-3, steps)
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


def _build_optimizer(
    net: nn.Module, rate: float, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)


class _Ones(nn.Module):
    def forward(self, rows: Tensor) -> Tensor:
        return torch.zeros(len(rows), 1)  # the logarithm of 1
