"""DCI, SAP and InfoMEC on latents whose scores are known."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

from train.evaluation import disentanglement as measures

SIZES = (4, 6, 3)
COUNT = 3_000


@pytest.fixture(scope="module")
def factors() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([rng.integers(size, size=COUNT) for size in SIZES], axis=1)


def noise(shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(1).standard_normal(shape)


@pytest.fixture(scope="module")
def perfect(factors) -> np.ndarray:
    """One latent a factor, in another order and direction, and with a little noise."""
    return (factors * [1.0, -0.7, 2.0] + noise(factors.shape, 0.02))[:, [2, 0, 1]]


@pytest.fixture(scope="module")
def rotated(factors) -> np.ndarray:
    """The same information, each factor over all latents."""
    standard = (factors - factors.mean(0)) / factors.std(0)
    turn, _ = np.linalg.qr(np.array([[1.0, 1, 1], [1, -1, 1], [1, 1, -2]]) + 0.3)
    return standard @ turn


def test_dci_of_one_latent_a_factor_is_one(factors, perfect):
    assert measures.dci(perfect, factors) == pytest.approx(
        {"dci_disentanglement": 1, "dci_completeness": 1, "dci_informativeness": 1}, abs=0.02
    )


def test_dci_of_rotated_latents_is_low_but_informative(factors, rotated):
    scores = measures.dci(rotated, factors)
    assert scores["dci_disentanglement"] < 0.3
    assert scores["dci_completeness"] < 0.3
    assert scores["dci_informativeness"] > 0.9


def test_dci_of_noise_is_not_informative(factors):
    assert measures.dci(noise((COUNT, 3)), factors)["dci_informativeness"] == pytest.approx(1 / 4, abs=0.06)


def test_concentration_is_the_definition():
    importance = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
    half = 1 - np.log(2) / np.log(3)  # a row over two of three columns
    assert measures._concentration(importance) == pytest.approx((1 * half + 2 * 1.0) / 3)
    assert measures._concentration(np.zeros((2, 3))) == 0


def test_sap_is_high_for_one_latent_a_factor_and_low_for_two(factors, perfect):
    alone = measures.sap(perfect, factors)
    twice = measures.sap(np.hstack([perfect, perfect]), factors)
    assert alone > 0.3
    assert twice == pytest.approx(0, abs=0.01)
    assert measures.sap(perfect[:, :1], factors) == 0


def test_sap_of_a_binary_factor_is_the_gap_from_chance():
    factor = np.random.default_rng(0).integers(2, size=(COUNT, 1))
    latents = np.hstack([2.0 * factor - 1, noise((COUNT, 1))])
    assert measures.sap(latents, factor) == pytest.approx(0.5, abs=0.05)


def test_infomec_of_one_latent_a_factor_is_one(factors, perfect):
    scores = measures.infomec(perfect, factors, np.arange(3))
    assert scores["infomec_modularity"] == pytest.approx(1, abs=0.03)
    assert scores["infomec_compactness"] == pytest.approx(1, abs=0.03)
    assert scores["infomec_explicitness"] > 0.8


def test_infomec_of_rotated_latents_is_explicit_but_neither_modular_nor_compact(factors, rotated):
    scores = measures.infomec(rotated, factors, np.arange(3))
    assert scores["infomec_modularity"] < 0.5
    assert scores["infomec_compactness"] < 0.5
    assert scores["infomec_explicitness"] > 0.8


def test_infomec_leaves_dead_latents_out(factors, perfect):
    padded = np.hstack([noise((COUNT, 2), 1e-4), perfect])
    scores = measures.infomec(padded, factors, np.array([2, 3, 4]))
    assert scores == pytest.approx(measures.infomec(perfect, factors, np.arange(3)), abs=0.01)
    assert set(measures.infomec(perfect, factors, np.array([], int)).values()) == {0.0}


def test_the_highest_share_is_scaled_from_chance_to_one():
    assert measures._highest_of_sum(np.eye(3)) == pytest.approx(1)
    assert measures._highest_of_sum(np.ones((3, 3))) == pytest.approx(0)
    assert measures._highest_of_sum(np.array([[3.0, 1.0], [0.0, 0.0]])) == pytest.approx(((0.75 + 0.5) / 2 - 0.5) / 0.5)


def test_label_accuracy_is_one_for_separate_labels_and_chance_for_noise():
    labels = np.random.default_rng(0).integers(4, size=COUNT)
    apart = np.eye(4)[labels] + noise((COUNT, 4), 0.05)
    assert measures.label_accuracy(apart, labels) == 1
    assert measures.label_accuracy(noise((COUNT, 4)), labels) == pytest.approx(0.25, abs=0.06)
