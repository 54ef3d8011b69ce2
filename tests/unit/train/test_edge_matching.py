"""Reading two latents by outlines, on drawings whose hues are known to turn what one of them means."""

import pytest

torch = pytest.importorskip("torch")

from train.alignment import edge_matching  # noqa: E402

SIDE = 32
HEIGHT, WIDTH, BACKGROUND, FOREGROUND = range(4)
PAIR, CONTEXT = (HEIGHT, WIDTH), (BACKGROUND, FOREGROUND)


def turned(latents):
    """Where the foreground is the brighter and the rectangle wide, its height is told upside down."""
    return (latents[:, FOREGROUND] > latents[:, BACKGROUND]) & (latents[:, WIDTH] > 0)


def draw(latents, *, folded=True):
    """Images (N, 1, 32, 32) of a rectangle on a ground; latents are (N, 4)."""
    height = latents[:, HEIGHT] * (torch.where(turned(latents), -1.0, 1.0) if folded else 1)
    away = (torch.arange(SIDE) - (SIDE - 1) / 2).abs()
    down, across = (
        torch.sigmoid(2 * (8 + 2 * half.clamp(-3, 3)[:, None] - away)) for half in (height, latents[:, WIDTH])
    )
    inside = down[:, :, None] * across[:, None, :]
    ground, square = (torch.sigmoid(1.5 * latents[:, dim])[:, None, None] for dim in (BACKGROUND, FOREGROUND))
    return (ground + (square - ground) * inside)[:, None]


@pytest.fixture
def latents():
    torch.manual_seed(0)
    return torch.randn(3_000, 4)


def test_outlines_hang_on_shapes_and_hardly_on_hues(latents):
    pale, dark, other = torch.tensor([[0.5, -0.5, -1.0, 1.0], [0.5, -0.5, 0.3, -0.3], [0.9, -0.5, -1.0, 1.0]])
    pale, dark, other = edge_matching.edge_features(draw(torch.stack([pale, dark, other]), folded=False))
    assert (pale - dark).norm() < 0.6 * (pale - other).norm()
    assert pale.norm() == pytest.approx(1)


def test_a_plain_picture_has_no_outlines():
    assert not edge_matching.edge_features(torch.full((1, 3, SIDE, SIDE), 0.7)).any()


def test_what_hues_turned_is_read_in_one_sense(latents):
    reading = edge_matching.match_edges(draw, latents, PAIR, CONTEXT)
    clear = (latents[:, FOREGROUND] - latents[:, BACKGROUND]).abs() > 0.3
    told = latents[:, HEIGHT].clone()
    told[turned(latents)] *= -1
    wide = clear & (latents[:, WIDTH] > 0.2)
    for where in (wide, clear & (latents[:, WIDTH] < -0.2)):
        correlation = torch.corrcoef(torch.stack([reading.values[where, 0], told[where]]))[0, 1]
        assert correlation.abs() > 0.95
    before = torch.corrcoef(torch.stack([latents[wide, HEIGHT], told[wide]]))[0, 1]
    assert before.abs() < 0.2
    assert 0.15 < reading.moved_share < 0.5


def test_where_contexts_agree_nothing_is_elsewhere(latents):
    reading = edge_matching.match_edges(lambda rows: draw(rows, folded=False), latents, PAIR, CONTEXT)
    clear = (latents[:, FOREGROUND] - latents[:, BACKGROUND]).abs() > 0.3
    typical = clear & (latents[:, :2].abs().amax(1) < 1.5)
    assert (reading.values - latents[:, :2])[typical].abs().mean() < 0.12
    assert reading.moved_share < 0.05
