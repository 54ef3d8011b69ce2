"""Answers in a notebook: ranked, flagged, as a data frame, as HTML."""

import sys

import pytest

from service.api.schemas import PicturesResponse, ScoreResponse

CONTEXT = {
    "source": "batch",
    "size": 3,
    "estimator": "robust",
    "contamination": None,
    "reliability": "low",
    "warnings": [],
}


def item(index, rank, **fields):
    scores = {"outlier_score": 1.0, "mahalanobis_squared": 2.0, "outlier_probability": 0.5, "is_outlier": rank == 1}
    return {"index": index, "id": f"<{index}>", "status": "ok", "rank": rank, **scores, **fields}


LATENT = {"latent": "hue", "index": 0, "value": 1.0, "shapley": 3.0, "shapley_odds": 4.0, "conditional_z": 5.0}
NO_SCORES = dict.fromkeys(("outlier_score", "mahalanobis_squared", "outlier_probability", "is_outlier", "rank"))
ERROR = {"code": "undecodable_image", "message": "no image", "hint": ""}
ANSWER = ScoreResponse(
    bundle_id="b",
    model="m",
    context=CONTEXT,
    items=[
        item(0, 2),
        item(1, 1, attributions=[{**LATENT, "marginal_z": 6.0, "dead": False}], nearest=[]),
        {"index": 2, "id": "2", "status": "error", "error": ERROR, **NO_SCORES},
    ],
)


def test_items_are_ranked_and_shown():
    assert [each.index for each in ANSWER.ranked] == [1, 0]
    assert [each.index for each in ANSWER.flagged] == [1]
    html = ANSWER._repr_html_()
    assert "3 images, 1 flagged, 1 unreadable" in html
    assert html.index("&lt;1&gt;") < html.index("&lt;0&gt;")
    assert "<1>" not in html
    assert "items" in ANSWER.model_dump()
    assert "ranked" not in ANSWER.model_dump()


def test_a_data_frame_has_a_row_for_each_item(monkeypatch):
    pytest.importorskip("pandas")
    frame = ANSWER.to_pandas()
    assert frame["id"].tolist() == ["<0>", "<1>", "2"]
    assert frame["shapley hue"].tolist()[1] == 3
    assert frame["error"].tolist()[2] == "no image"
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match="misfit\\[tables\\]"):
        ANSWER.to_pandas()


def test_pictures_show_themselves():
    picture = {"id": "<a>", "index": 0, "changed": [], "latents": [], "mahalanobis_squared": None, "inside": None}
    answer = PicturesResponse(
        bundle_id="b", model="m", context=None, latents=[], pictures=[{**picture, "image": "QUJD"}], errors={}
    )
    assert "data:image/png;base64,QUJD" in answer._repr_html_()
    assert "&lt;a&gt;" in answer._repr_html_()
