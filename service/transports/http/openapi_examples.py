"""Examples of the OpenAPI document."""

from __future__ import annotations

from typing import Any

ERROR: dict[str, Any] = {
    "error": {
        "code": "invalid_option",
        "message": "Unknown option: estimatr.",
        "hint": "Known options are resize, estimator, foreign, threshold, fdr.",
    },
    "request_id": "0f3a4c51c0e84c5e",
}

LATENTS: dict[str, Any] = {"latents": [[0.1, -1.3, 0.4, 0.0, 2.1, -0.7]]}

# The answer to three images of which one does not belong.
_SCORES: dict[str, Any] = {
    "bundle_id": "shapes3d-5f0c",
    "model": "shapes3d_beta_tcvae",
    "context": {
        "source": "batch",
        "size": 3,
        "estimator": "ensemble",
        "contamination": 0.3,
        "reliability": "low",
        "warnings": ["3 images are few: send more, or a reference set."],
    },
    "groups": [],
    "items": [
        {
            "index": index,
            "id": id_,
            "status": "ok",
            "outlier_score": score,
            "mahalanobis_squared": distance,
            "outlier_probability": probability,
            "is_outlier": probability > 0.5,
            "rank": rank,
            "is_foreign": False,
        }
        for index, id_, score, distance, probability, rank in (
            (0, "a.png", -3.1, 2.4, 0.04, 2),
            (1, "b.png", 6.2, 61.0, 0.99, 1),
            (2, "c.png", -3.5, 1.9, 0.03, 3),
        )
    ],
}

ANSWERS = {"score": _SCORES}
