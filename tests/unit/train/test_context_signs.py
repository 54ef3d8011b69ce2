"""The signs of a latent in every context, on a drawing whose size latent changes its sense with two colours."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from folded_square import BACKGROUND, FOREGROUND, LIVE, SIZE, draw, random_latents, sense  # noqa: E402

from train.alignment import context_signs  # noqa: E402


@pytest.fixture(scope="module")
def latents():
    return random_latents()


@pytest.fixture(scope="module")
def pairs(latents):
    torch.manual_seed(0)
    return context_signs.sample_pairs(draw, latents, LIVE, SIZE, 3_000)


def test_patterns_tell_whether_the_sense_is_the_same(pairs):
    truth = sense(pairs.before) * sense(pairs.after)
    clear = pairs.agreement.abs() > 0.1
    assert clear.float().mean() > 0.5
    assert (torch.sign(pairs.agreement[clear]) == truth[clear]).float().mean() > 0.98


def test_only_the_folded_latent_is_often_mirrored(latents, pairs):
    plain = context_signs.sample_pairs(lambda rows: draw(rows, folded=False), latents, LIVE, SIZE, 500)
    assert context_signs.mirrored_share(pairs) > 0.05
    assert context_signs.mirrored_share(plain) < 0.01
    assert context_signs.find_context(pairs) == (BACKGROUND, FOREGROUND)


def test_the_signs_give_one_sense_everywhere_and_back(latents, pairs):
    torch.manual_seed(0)
    fixed = context_signs.fit_signs(pairs, latents, SIZE, steps=800)
    value = fixed.align(latents)
    right = (torch.sign(value) == torch.sign(latents[:, SIZE]) * sense(latents)).float().mean()
    assert max(right, 1 - right) > 0.95
    torch.testing.assert_close(fixed.unalign(value, latents), latents[:, SIZE])


def test_a_latent_of_one_sense_is_refused(latents):
    plain = context_signs.sample_pairs(lambda rows: draw(rows, folded=False), latents, LIVE, SIZE, 500)
    with pytest.raises(context_signs.NotFolded, match="latent 0 is not folded"):
        context_signs.fit_signs(plain, latents, SIZE, steps=10)


def test_evidence_that_no_signs_account_for_does_not_make_a_latent_folded(latents, pairs):
    """As a hue has, whose every turn changes the same pixels: as much looks mirrored, but without order."""
    torch.manual_seed(0)
    shuffled = replace(pairs, agreement=pairs.agreement[torch.randperm(len(pairs.agreement))])
    assert context_signs.mirrored_share(shuffled) == pytest.approx(context_signs.mirrored_share(pairs))
    with pytest.raises(context_signs.NotFolded, match="% of what looks mirrored"):
        context_signs.fit_signs(shuffled, latents, SIZE, steps=800)
    context_signs.fit_signs(pairs, latents, SIZE, steps=800)
