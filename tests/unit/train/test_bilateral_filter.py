"""The decoder's filter: as its formula says, grain goes, edges stay, and images do not see one another."""

from __future__ import annotations

import math
from itertools import product

import pytest

torch = pytest.importorskip("torch")

from train.models.bilateral_filter import SeparableBilateral  # noqa: E402


def learnt(radius: int) -> SeparableBilateral:
    """A filter whose two axes differ, as they do after training."""
    torch.manual_seed(radius)
    layer = SeparableBilateral(radius)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return layer


def naive(layer: SeparableBilateral, logits: torch.Tensor) -> torch.Tensor:
    """Pixel by pixel, in double precision: rows, then columns."""
    values = logits.double()
    for axis in (0, 1):
        colours, filtered = values.sigmoid(), torch.empty_like(values)
        sharpness = math.exp(layer.sharpness[axis].item())
        for n, row, column in product(*(range(size) for size in (len(values), *values.shape[2:]))):
            total, norm = values[n, :, row, column].clone(), 1.0
            for distance in range(1, layer.radius + 1):
                for step in (-distance, distance):
                    y, x = (row, column + step) if axis == 0 else (row + step, column)
                    if 0 <= y < values.shape[2] and 0 <= x < values.shape[3]:
                        apart = float((colours[n, :, y, x] - colours[n, :, row, column]).square().sum())
                        weight = math.exp(layer.nearness[axis, distance - 1].item() - sharpness * apart)
                        total, norm = total + weight * values[n, :, y, x], norm + weight
            filtered[n, :, row, column] = total / norm
        values = filtered
    return values


@pytest.mark.parametrize("shape", [(2, 3, 6, 9), (1, 1, 7, 3)])
@pytest.mark.parametrize("radius", [1, 4])
def test_it_is_the_formula(shape, radius):
    layer, logits = learnt(radius), torch.randn(shape) * 0.3
    torch.testing.assert_close(layer(logits), naive(layer, logits).float(), rtol=1e-5, atol=1e-5)


def test_grain_goes_and_edges_stay():
    torch.manual_seed(0)
    clean = torch.full((1, 3, 32, 32), -0.5)
    clean[:, :, 8:24, 8:24] = 1.0
    grainy = clean + 0.05 * torch.randn_like(clean)
    filtered = SeparableBilateral(4)(grainy)
    left = (filtered - clean).abs()
    assert left.mean() < 0.4 * (grainy - clean).abs().mean()
    assert left.max() < 0.2, "the edge, a step of 1.5, has not been blurred"
    torch.testing.assert_close(SeparableBilateral(4)(clean), clean, rtol=1e-3, atol=1e-3)


def test_an_image_is_the_same_in_any_company():
    layer, logits = learnt(3), torch.randn(5, 3, 12, 12)
    alone = torch.cat([layer(image[None]) for image in logits])
    torch.testing.assert_close(layer(logits), alone)


def test_gradients_reach_the_logits_and_both_kinds_of_nearness():
    layer, logits = learnt(2), (0.3 * torch.randn(1, 2, 4, 5)).requires_grad_()
    arguments = {"logits": logits, "nearness": layer.nearness, "sharpness": layer.sharpness}

    def objective(**moved):
        parameters = {name: moved.get(name, arguments[name]) for name in ("nearness", "sharpness")}
        filtered = torch.func.functional_call(layer, parameters, (moved.get("logits", logits),))
        return filtered.square().sum()

    for name, argument in arguments.items():
        (gradient,) = torch.autograd.grad(objective(), argument)
        step = 1e-2 * torch.randn_like(argument)
        difference = (objective(**{name: argument + step}) - objective(**{name: argument - step})) / 2
        assert difference.item() == pytest.approx((gradient * step).sum().item(), rel=0.02), name
