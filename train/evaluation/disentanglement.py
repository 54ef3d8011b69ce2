"""Disentanglement metrics besides the MIG: DCI, SAP and InfoMEC.

All functions take means (N, L) and factor classes (N, K) in random order. They fit on one part and test on another.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import mutual_info_classif
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, mutual_info_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

Floats = NDArray[np.float64]
Classes = NDArray[np.int64]

TRAIN_SHARE = 2 / 3
TREES = 50
LEAF = 5  # least number of images in a leaf: deeper trees learn the noise
REGULARISATION = 0.01  # C of the linear classifiers of SAP, as in disentanglement_lib
NEAREST = 3


def dci(mean: Floats, factors: Classes, seed: int = 0) -> dict[str, float]:
    """Return disentanglement, completeness and informativeness (Eastwood & Williams 2018).

    A random forest predicts each factor from the latents. Disentanglement measures whether a latent is important for
    one factor only, completeness whether a factor is predicted by one latent only. Both are 1 less the normalised
    entropy of the forest's importances. Informativeness is the share of correct predictions on unseen images, averaged
    over factors.
    """
    seen, unseen = _parts(len(mean))
    importance = np.empty((mean.shape[1], factors.shape[1]))
    right = []
    for column, factor in enumerate(factors.T):
        # Every split may use any latent: a random subset credits a wrong one where it lacks the right one.
        forest = RandomForestClassifier(TREES, min_samples_leaf=LEAF, max_features=None, random_state=seed)
        forest.fit(mean[seen], factor[seen])
        importance[:, column] = forest.feature_importances_
        right.append(forest.score(mean[unseen], factor[unseen]))
    return {
        "dci_disentanglement": _concentration(importance),
        "dci_completeness": _concentration(importance.T),
        "dci_informativeness": float(np.mean(right)),
    }


def sap(mean: Floats, factors: Classes, seed: int = 0) -> float:
    """Return the separated attribute predictability (Kumar et al. 2018), for factors with classes.

    It is the gap in accuracy between the two latents that alone predict a factor best, by a linear classifier on unseen
    images, averaged over factors. It is 0 for a single latent.
    """
    seen, unseen = _parts(len(mean))
    score = np.zeros((mean.shape[1], factors.shape[1]))
    for (latent, column), _ in np.ndenumerate(score):
        classifier = LinearSVC(C=REGULARISATION, class_weight="balanced", dual=False, random_state=seed)
        classifier.fit(mean[seen, latent, None], factors[seen, column])
        score[latent, column] = classifier.score(mean[unseen, latent, None], factors[unseen, column])
    ordered = np.sort(score, axis=0)[::-1]
    return float((ordered[0] - ordered[1]).mean()) if len(ordered) > 1 else 0.0


def infomec(mean: Floats, factors: Classes, live: NDArray[np.intp], seed: int = 0) -> dict[str, float]:
    """Return InfoM, InfoE and InfoC (Hsu et al. 2023): modularity, explicitness and compactness of the `live` latents.

    Modularity and compactness use the mutual information of latents (continuous, by nearest neighbours) and factors, as
    a share of the factor's entropy. Modularity measures whether a latent informs about one factor only, compactness
    whether one latent only informs about a factor. Both are the highest share over the sum of shares, scaled so that
    equal shares give 0. Explicitness is the share of the factor's entropy that a logistic regression on all latents
    removes from the log loss on unseen images. All are 0 without live latents.
    """
    if not len(live):
        return {"infomec_modularity": 0.0, "infomec_explicitness": 0.0, "infomec_compactness": 0.0}
    latents = StandardScaler().fit_transform(mean[:, live])
    share = np.stack(
        [
            mutual_info_classif(latents, factor, n_neighbors=NEAREST, random_state=seed)
            / mutual_info_score(factor, factor)
            for factor in factors.T
        ],
        axis=1,
    )  # (live, K)
    return {
        "infomec_modularity": _highest_of_sum(share),
        "infomec_explicitness": float(np.mean([_explained(latents, factor) for factor in factors.T])),
        "infomec_compactness": _highest_of_sum(share.T),
    }


def label_accuracy(mean: Floats, labels: Classes) -> float:
    """Return the share of unseen images whose label a logistic regression on the latents predicts."""
    seen, unseen = _parts(len(mean))
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000)).fit(mean[seen], labels[seen])
    return float(regression.score(mean[unseen], labels[unseen]))


def _parts(count: int) -> tuple[slice, slice]:
    seen = round(count * TRAIN_SHARE)
    return slice(seen), slice(seen, count)


def _concentration(importance: Floats) -> float:
    """Return 1 less the normalised entropy of each row, averaged over rows with their sums as weights."""
    rows = importance[importance.sum(axis=1) > 0]
    if not len(rows) or rows.shape[1] < 2:
        return 0.0
    shares = rows / rows.sum(axis=1, keepdims=True)
    entropy = -np.where(shares > 0, shares * np.log(np.where(shares > 0, shares, 1)), 0).sum(axis=1)
    return float(np.average(1 - entropy / np.log(rows.shape[1]), weights=rows.sum(axis=1)))


def _highest_of_sum(share: Floats) -> float:
    """Return the mean of highest / sum of the rows, scaled from [1 / columns, 1] to [0, 1]; empty rows are equal."""
    columns = share.shape[1]
    if columns < 2:
        return 0.0
    total = share.sum(axis=1)
    ratio = np.where(total > 0, share.max(axis=1) / np.where(total > 0, total, 1), 1 / columns)
    return float((ratio.mean() - 1 / columns) / (1 - 1 / columns))


def _explained(latents: Floats, factor: Classes) -> float:
    seen, unseen = _parts(len(latents))
    classes = np.unique(factor)
    regression = LogisticRegression(max_iter=1_000).fit(latents[seen], factor[seen])
    frequencies = np.array([(factor[seen] == value).mean() for value in classes])
    known = np.isin(factor[unseen], regression.classes_)
    knowing_nothing = -np.log(frequencies[np.searchsorted(classes, factor[unseen][known])]).mean()
    knowing = log_loss(
        factor[unseen][known], regression.predict_proba(latents[unseen][known]), labels=regression.classes_
    )
    return float(max(0.0, 1 - knowing / knowing_nothing))
