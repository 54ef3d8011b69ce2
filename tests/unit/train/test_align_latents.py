"""The alignment on a drawing whose size latent changes its sense with two colours: the answer is known."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from folded_square import BACKGROUND, FOREGROUND, SIDE, SIZE, draw, random_latents, sense  # noqa: E402

from train.alignment import (  # noqa: E402
    align_latents,
    context_signs,
    edge_matching,
    pair_model,
    refit_heads,
)
from train.config.experiment import BetaTCVAE, Network  # noqa: E402
from train.models.vae import VAE  # noqa: E402


@pytest.fixture(scope="module")
def latents():
    return random_latents()


def test_the_latent_that_is_folded_need_not_look_most_mirrored(monkeypatch, latents):
    shares = {SIZE: 0.02, BACKGROUND: 0.03, FOREGROUND: 0.001}
    tried = []

    def fix(pairs, latents, latent):
        tried.append(latent)
        if latent != SIZE:
            raise context_signs.NotFolded("not this one")
        return "the signs"

    monkeypatch.setattr(context_signs, "sample_pairs", lambda decode, latents, dims, latent, count: latent)
    monkeypatch.setattr(context_signs, "mirrored_share", lambda latent: shares[latent])
    monkeypatch.setattr(context_signs, "fit_signs", fix)
    assert align_latents.find_folded_latent(draw, latents) == ("the signs", list(shares.values()))
    assert tried == [BACKGROUND, SIZE]
    shares[SIZE] = 0.001
    assert align_latents.find_folded_latent(draw, latents)[0] is None


def test_the_partner_is_the_latent_that_depends_on_the_value():
    rows = torch.randn(2_000, 3)
    assert align_latents.find_dependent_latent(rows[:, 2].abs() + 0.1 * torch.randn(2_000), rows, [0, 1, 2]) == 2
    assert align_latents.find_dependent_latent(torch.randn(4_000), torch.randn(4_000, 3), [0, 1, 2]) is None


def test_points_off_every_cluster_are_not_typical():
    centres = torch.tensor([[0.0, 0.0], [0.0, 5.0], [5.0, 0.0]])
    clusters = centres.repeat(300, 1) + 0.05 * torch.randn(900, 2)
    strays = 2.5 + 0.5 * torch.randn(40, 2)
    typical = align_latents.is_typical(torch.cat([clusters, strays]))
    assert not typical[900:].any()
    assert typical[:900].float().mean() > 0.9


def test_the_smaller_model_computes_what_the_larger_one_did_with_the_others_at_0():
    network = Network(channels=(4, 8), hidden=(32,), latent_dim=5)
    model, live = VAE((SIDE, SIDE, 1), network), torch.tensor([0, 3])
    smaller = align_latents.keep_latents(model, live, replace(network, latent_dim=2))
    images, latents = torch.rand(7, 1, SIDE, SIDE), torch.zeros(7, 5)
    latents[:, live] = torch.randn(7, 2)
    with torch.no_grad():
        for whole, part in zip(model.encode(images), smaller.encode(images), strict=True):
            torch.testing.assert_close(whole[:, live], part)
        torch.testing.assert_close(model.decode(latents), smaller.decode(latents[:, live]))


def test_another_latent_changes_nothing_yet():
    network = Network(channels=(4, 8), hidden=(32,), latent_dim=2)
    model = VAE((SIDE, SIDE, 1), network)
    larger = align_latents.add_latent(model, replace(network, latent_dim=3))
    images, latents = torch.rand(7, 1, SIDE, SIDE), torch.randn(7, 3)
    with torch.no_grad():
        for part, whole in zip(model.encode(images), larger.encode(images), strict=True):
            torch.testing.assert_close(whole[:, :2], part)
            assert not whole[:, 2].any()
        torch.testing.assert_close(larger.decode(latents), model.decode(latents[:, :2]))


class Drawing:
    """A model that draws, in place of a network: five latents, of which the last two are idle."""

    def __init__(self, folded):
        self.folded = folded

    def decode(self, latents):
        return torch.logit(draw(latents, folded=self.folded).clamp(1e-4, 1 - 1e-4))


def unfolded(monkeypatch, latents, *, folded):
    """`align_signs` on images of `latents`: its report, and what the network would have been taught."""
    taught = []
    logvar = torch.full((len(latents), 5), -4.0)
    logvar[:, 3:] = 0
    mean = torch.cat([latents, torch.zeros(len(latents), 2)], dim=1)
    both = torch.stack([mean, logvar], dim=1).numpy()
    monkeypatch.setattr(align_latents, "encode", lambda model, images, rows: both[rows])
    monkeypatch.setattr(align_latents, "keep_latents", lambda model, live, network: model)
    monkeypatch.setattr(align_latents, "add_latent", lambda model, network: model)
    monkeypatch.setattr(
        refit_heads, "refit", lambda model, images, rows, *targets, decoded: taught.append((rows, *targets))
    )
    monkeypatch.setattr(align_latents, "PAIRS", 3_000)
    for name, value in {"LATENT_STEPS": 600, "PRESSURE_STEPS": 200, "PICTURE_WEIGHT": 200.0}.items():
        monkeypatch.setattr(pair_model, name, value)
    fix = context_signs.fit_signs
    monkeypatch.setattr(context_signs, "fit_signs", lambda *arguments: fix(*arguments, steps=800))
    images, rows = np.zeros((len(latents), SIDE, SIDE, 1), np.uint8), np.arange(len(latents))
    network = Network(channels=(4, 8), hidden=(32,), latent_dim=5)
    before = torch.get_rng_state()
    _, report = align_latents.align_signs(Drawing(folded), network, images, rows, BetaTCVAE(), seed=1, candidates=2)
    assert torch.equal(before, torch.get_rng_state())
    return report, taught


@pytest.mark.parametrize("dependence", [0.0, align_latents.DEPENDENCE], ids=["a partner", "a latent more"])
def test_a_folded_latent_is_found_and_its_images_get_one_sense(monkeypatch, latents, dependence):
    """Here the size depends on no other latent: it gets one more, unless any will do."""
    monkeypatch.setattr(align_latents, "DEPENDENCE", dependence)
    report, [(rows, mean, logvar, weight)] = unfolded(monkeypatch, latents, folded=True)
    assert (report["kept"], report["folded"]) == ([0, 1, 2], SIZE)
    assert report["context"] == (BACKGROUND, FOREGROUND)
    assert len(report["objectives"]) == 2

    half_side = (latents[:, SIZE] * sense(latents))[rows].numpy()
    counts = weight[:, SIZE].bool()
    assert 0.85 < counts.float().mean() < 0.95
    # Normal factors have no axes of their own: that the two latents together tell the size is all there is to ask.
    design = np.column_stack([mean[counts][:, [SIZE, report["partner"]]].numpy(), np.ones(int(counts.sum()))])
    residual = np.linalg.lstsq(design, half_side[counts])[1][0] / len(design)
    assert residual < 0.25 * half_side[counts].var()
    assert abs(np.corrcoef(latents[rows][counts, SIZE], half_side[counts])[0, 1]) < 0.1
    assert (report["partner"] == 3) == (dependence > 0)
    others = [dim for dim in (BACKGROUND, FOREGROUND) if dim != report["partner"]]
    assert torch.equal(mean[:, others], latents[rows][:, others])
    assert (logvar[:, others] == -4).all()


def test_where_no_latent_is_folded_only_the_idle_ones_go(monkeypatch, latents):
    report, taught = unfolded(monkeypatch, latents, folded=False)
    assert (report["kept"], report["folded"], taught) == ([0, 1, 2], None, [])


@pytest.mark.parametrize("elsewhere", [0.0, 0.3])
def test_what_other_contexts_read_differently_is_taught_anew(monkeypatch, latents, elsewhere):
    taught = []
    read = torch.randn(1_000, 2)
    distance = torch.linspace(0, 1, 1_000)

    def reading(decode, mean, pair, context):
        assert (mean.shape, pair, context) == ((1_000, 3), (SIZE, BACKGROUND), (FOREGROUND,))
        return edge_matching.EdgeMatch(read, distance, elsewhere)

    both = torch.stack([latents, torch.full(latents.shape, -4.0)], dim=1).numpy()
    monkeypatch.setattr(align_latents, "encode", lambda model, images, rows: both[rows])
    monkeypatch.setattr(edge_matching, "match_edges", reading)
    monkeypatch.setattr(
        refit_heads, "refit", lambda model, images, rows, *targets, decoded: taught.append((rows, *targets))
    )
    report = {"folded": SIZE, "partner": BACKGROUND, "context": [FOREGROUND]}
    before = torch.get_rng_state()
    told = align_latents.realign(Drawing(False), np.zeros(len(latents)), np.arange(1_000), report, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    assert told == {"aligned": elsewhere > 0, "elsewhere": elsewhere}
    if not told["aligned"]:
        assert not taught
        return
    [(rows, mean, logvar, weight)] = taught
    assert torch.equal(mean[:, [SIZE, BACKGROUND]], read)
    assert torch.equal(mean[:, FOREGROUND], latents[rows, FOREGROUND])
    assert (logvar == -4).all()
    assert weight[:, SIZE].mean() == pytest.approx(align_latents.TYPICAL)
    assert (weight[-90:, [SIZE, BACKGROUND]] == 0).all(), "what was hardly found counts nothing"
    assert (weight[:, FOREGROUND] == 1).all()


def test_what_was_not_unfolded_is_not_looked_at():
    assert align_latents.realign(None, None, None, {"kept": [0], "folded": None}, seed=0) == {"aligned": False}


@pytest.mark.parametrize("live", [0, 1])
def test_a_model_without_two_live_latents_has_nothing_to_unfold(live):
    network = Network(channels=(4, 8), hidden=(32,), latent_dim=2)
    model = VAE((SIDE, SIDE, 1), network)
    with torch.no_grad():
        model.encoder[-1].weight.zero_()
        model.encoder[-1].bias.copy_(torch.tensor([0.0, 0.0, -4.0 if live else 0.0, 0.0]))
    images = np.zeros((50, SIDE, SIDE, 1), np.uint8)
    smaller, report = align_latents.align_signs(model, network, images, np.arange(50), BetaTCVAE(), seed=0)
    assert (smaller.latent_dim, report["folded"]) == (live or 2, None)
