"""The objective's terms against naive loops, their identities, and finite differences."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from skimage.metrics import structural_similarity as structural_similarity_of  # noqa: E402

from train.objectives.losses import (  # noqa: E402
    KLTerms,
    Terms,
    beta_tcvae,
    beta_vae,
    capacity_vae,
    kl_terms,
    kl_to_prior,
    log_importance_weights,
    log_normal,
    reconstruction_nll,
)
from train.objectives.ssim import structural_similarity  # noqa: E402

BATCH, LATENTS, POPULATION = 7, 3, 50


@pytest.fixture
def posterior() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    mean, logvar, noise = torch.randn(3, BATCH, LATENTS, generator=generator, dtype=torch.float64)
    return mean + torch.exp(0.5 * logvar) * noise, mean, logvar


def naive_kl_terms(latents, mean, logvar, estimator):
    """The definitions with loops, densities instead of logarithms, and the weights written out."""

    def density(value, centre, log_variance):
        variance = math.exp(log_variance)
        return math.exp(-((value - centre) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)

    count = len(latents)
    mutual_information = total_correlation = dimension_wise_kl = 0.0
    for i in range(count):
        joint, marginals = 0.0, [0.0] * LATENTS
        for j in range(count):
            weight = 1 / (POPULATION * count)
            if estimator == "stratified":
                weight = 1 / POPULATION if i == j else (POPULATION - 1) / POPULATION / (count - 1)
            per_dim = [density(latents[i, d], mean[j, d], logvar[j, d]) for d in range(LATENTS)]
            joint += weight * math.prod(per_dim)
            marginals = [total + weight * value for total, value in zip(marginals, per_dim, strict=True)]
        own = math.prod(density(latents[i, d], mean[i, d], logvar[i, d]) for d in range(LATENTS))
        prior = math.prod(density(latents[i, d], 0.0, 0.0) for d in range(LATENTS))
        mutual_information += math.log(own / joint) / count
        total_correlation += math.log(joint / math.prod(marginals)) / count
        dimension_wise_kl += math.log(math.prod(marginals) / prior) / count
    return mutual_information, total_correlation, dimension_wise_kl


@pytest.mark.parametrize("estimator", ["stratified", "weighted"])
def test_terms_equal_the_naive_definitions(posterior, estimator):
    terms = kl_terms(*posterior, POPULATION, estimator)
    assert [term.item() for term in terms] == pytest.approx(naive_kl_terms(*posterior, estimator), rel=1e-10)


@pytest.mark.parametrize("estimator", ["stratified", "weighted"])
def test_terms_telescope_to_the_kl(posterior, estimator):
    latents, mean, logvar = posterior
    zero = torch.zeros_like(mean)
    whole = (log_normal(latents, mean, logvar) - log_normal(latents, zero, zero)).sum(1).mean()
    assert sum(kl_terms(latents, mean, logvar, POPULATION, estimator)).item() == pytest.approx(whole.item(), rel=1e-12)


def test_stratified_weights_have_the_sample_itself_on_the_diagonal_and_rows_that_sum_to_one():
    weights = log_importance_weights(BATCH, POPULATION, "stratified").double().exp()
    assert weights.diagonal().tolist() == pytest.approx([1 / POPULATION] * BATCH, rel=1e-6)
    assert weights.sum(1).tolist() == pytest.approx([1.0] * BATCH, rel=1e-6)
    off_diagonal = weights[~torch.eye(BATCH, dtype=torch.bool)]
    assert off_diagonal.min() == off_diagonal.max()


def test_stratified_weights_average_the_published_ones():
    """Chen et al., appendix C.2: 1/N for the sample, (N-M)/(NM) for one other, 1/M for the rest; M = batch - 1."""
    others = BATCH - 1
    odd, rest = (POPULATION - others) / (POPULATION * others), 1 / others
    average = (odd + (others - 1) * rest) / others
    assert log_importance_weights(BATCH, POPULATION, "stratified")[0, 1].exp().item() == pytest.approx(average)


def test_stratified_estimate_of_the_aggregate_posterior_is_unbiased():
    """Over every batch that can be drawn around one image, the estimate averages to the density over all images."""
    from itertools import combinations

    generator = torch.Generator().manual_seed(0)
    population, batch = 6, 3
    densities = torch.rand(population, generator=generator, dtype=torch.float64)  # q(z | x_j) at some z from x_0
    weights = log_importance_weights(batch, population, "stratified").double().exp()[0]
    estimates = [
        weights[0] * densities[0] + sum(weights[1] * densities[j] for j in others)
        for others in combinations(range(1, population), batch - 1)
    ]
    assert (sum(estimates) / len(estimates)).item() == pytest.approx(densities.mean().item(), rel=1e-6)


def test_terms_do_not_depend_on_the_batch_order(posterior):
    order = torch.randperm(BATCH, generator=torch.Generator().manual_seed(1))
    shuffled = kl_terms(*(part[order] for part in posterior), POPULATION)
    assert [term.item() for term in shuffled] == pytest.approx([t.item() for t in kl_terms(*posterior, POPULATION)])


def test_gradients_equal_finite_differences():
    generator = torch.Generator().manual_seed(5)
    mean, logvar, noise = torch.randn(3, 4, 2, generator=generator, dtype=torch.float64)

    def objective(mean, logvar):
        latents = mean + torch.exp(0.5 * logvar) * noise
        nll = reconstruction_nll(latents[:, :, None, None], torch.full((4, 2, 1, 1), 0.3, dtype=torch.float64))
        return beta_tcvae(Terms(nll, *kl_terms(latents, mean, logvar, POPULATION)), 1.0, 6.0, 2.0)

    assert torch.autograd.gradcheck(objective, (mean.requires_grad_(), logvar.requires_grad_()))


def test_reconstruction_is_summed_cross_entropy_a_mean_over_images():
    logits, images = torch.tensor([[[[0.0, 2.0]]], [[[-1.0, 0.5]]]]), torch.tensor([[[[1.0, 0.25]]], [[[0.0, 1.0]]]])
    p = torch.sigmoid(logits)
    expected = -(images * p.log() + (1 - images) * (1 - p).log()).sum() / 2
    assert reconstruction_nll(logits, images).item() == pytest.approx(expected.item())


def some_images(height: int = 11, width: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain ones with an edge and faint noise, and what a decoder may draw of them: (3, 2, height, width) each."""
    generator = torch.Generator().manual_seed(7)
    noise = torch.rand(2, 3, 2, height, width, generator=generator, dtype=torch.float64)
    images = 0.2 + 0.05 * noise[0]
    images[..., width // 2 :] += 0.6
    return images, (images + 0.1 * noise[1]).clamp(0, 1)


def test_structural_similarity_is_the_measured_one():
    images, drawn = some_images()
    measured = [
        structural_similarity_of(image.numpy(), other.numpy(), channel_axis=0, data_range=1.0)
        for image, other in zip(images, drawn, strict=True)
    ]
    assert structural_similarity(images, drawn).item() == pytest.approx(sum(measured) / len(measured), rel=1e-9)
    assert structural_similarity(images, images).item() == pytest.approx(1)
    with pytest.raises(ValueError, match="6x9 are smaller"):
        structural_similarity(images[:, :, :6], drawn[:, :, :6])


def test_gradients_of_structural_similarity_equal_finite_differences():
    images, drawn = some_images(8, 7)
    assert torch.autograd.gradcheck(lambda x: structural_similarity(images[:1], x), drawn[:1].requires_grad_())


def test_the_closed_form_of_the_kl_is_the_integral():
    """Against a sum of q log(q / p) over a fine grid, for every latent of every image."""
    generator = torch.Generator().manual_seed(2)
    mean, logvar = torch.randn(2, BATCH, LATENTS, generator=generator, dtype=torch.float64)
    grid = torch.linspace(-20, 20, 40_001, dtype=torch.float64)[:, None, None]
    zero = torch.zeros(1, dtype=torch.float64)
    log_q, log_p = log_normal(grid, mean, logvar), log_normal(grid, zero, zero)
    naive = (log_q.exp() * (log_q - log_p)).sum(0) * (grid[1] - grid[0]).item()
    assert kl_to_prior(mean, logvar).tolist() == pytest.approx(naive.mean(0).tolist(), rel=1e-6)
    assert kl_to_prior(torch.zeros(2, 3), torch.zeros(2, 3)).tolist() == [0, 0, 0]


def naive_nll_and_kl(images, logits, mean, logvar):
    """Loops over images, pixels and latents."""
    nll = kl = 0.0
    for row in range(len(images)):
        for value, logit in zip(images[row].flatten().tolist(), logits[row].flatten().tolist(), strict=True):
            p = 1 / (1 + math.exp(-logit))
            nll -= (value * math.log(p) + (1 - value) * math.log(1 - p)) / len(images)
        for m, v in zip(mean[row].tolist(), logvar[row].tolist(), strict=True):
            kl += (m**2 + math.exp(v) - v - 1) / 2 / len(images)
    return nll, kl


def test_beta_vae_and_capacity_vae_equal_the_naive_formulas():
    generator = torch.Generator().manual_seed(4)
    mean, logvar = torch.randn(2, BATCH, LATENTS, generator=generator, dtype=torch.float64)
    logits = torch.randn(BATCH, 1, 2, 3, generator=generator, dtype=torch.float64)
    images = torch.rand(BATCH, 1, 2, 3, generator=generator, dtype=torch.float64)
    terms = KLTerms(reconstruction_nll(logits, images), kl_to_prior(mean, logvar).sum())
    nll, kl = naive_nll_and_kl(images, logits, mean, logvar)
    assert [term.item() for term in terms] == pytest.approx([nll, kl])
    assert beta_vae(terms, 4.0).item() == pytest.approx(nll + 4 * kl)
    for capacity in (kl - 1, kl + 1):  # both sides pull the KL to the capacity
        assert capacity_vae(terms, 10.0, capacity).item() == pytest.approx(nll + 10)


@pytest.mark.parametrize("capacity", [0.5, 25.0], ids=["above the capacity", "below the capacity"])
def test_gradients_of_the_closed_form_objectives_equal_finite_differences(capacity):
    generator = torch.Generator().manual_seed(6)
    mean, logvar, noise = torch.randn(3, 4, 2, generator=generator, dtype=torch.float64)

    def terms(mean, logvar):
        latents = mean + torch.exp(0.5 * logvar) * noise
        nll = reconstruction_nll(latents[:, :, None, None], torch.full((4, 2, 1, 1), 0.3, dtype=torch.float64))
        return KLTerms(nll, kl_to_prior(mean, logvar).sum())

    inputs = (mean.requires_grad_(), logvar.requires_grad_())
    assert torch.autograd.gradcheck(lambda *values: beta_vae(terms(*values), 2.5), inputs)
    assert torch.autograd.gradcheck(lambda *values: capacity_vae(terms(*values), 10.0, capacity), inputs)
