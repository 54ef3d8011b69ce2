"""The answers of /score and /explain as CSV, read back by Python's own reader."""

import csv

import pytest

from service.api.schemas import ErrorDetail, LatentAttribution, Neighbour, ScoredContext, ScoredItem, ScoreResponse
from service.pipeline.chunked_response import ChunkedResponse
from service.transports.http.score_table import ScoreTable

SCORES = {"outlier_score": 0.1, "mahalanobis_squared": 1e-17, "outlier_probability": 1 / 3, "is_outlier": False}
NO_SCORES = dict.fromkeys((*SCORES, "rank"))
FAILED = ScoredItem(
    index=0, id="a,b.png", status="error", error=ErrorDetail(code="c", message="none", hint="Send one."), **NO_SCORES
)
PLAIN = ScoredItem(index=1, id='say "hi"\n.png', status="ok", rank=1, is_foreign=True, **SCORES)
SHARES = {"value": 0, "shapley_odds": 0, "marginal_z": 0, "dead": False}
EXPLAINED = ScoredItem(
    index=2,
    id="日本.png",
    status="ok",
    rank=2,
    reason="hue is off; size too",
    minimal_set=["hue", "size"],
    nearest=[Neighbour(id="x.png", index=0, distance=1), Neighbour(id="y.png", index=1, distance=2)],
    attributions=[LatentAttribution(latent="size", index=1, shapley=2.5, conditional_z=-1.5, **SHARES)],
    **SCORES,
)


def table_of(*chunks) -> list[dict[str, str]]:
    context = ScoredContext(
        source="batch", size=3, estimator="robust", contamination=0, reliability="low", warnings=["few"]
    )
    head = ScoreResponse(bundle_id="b", model="m", context=context, items=[])
    table = ScoreTable(ChunkedResponse(head, "items", lambda: iter(chunks)), ["hue", "size"])
    text = b"".join(table.pieces()).decode()
    return list(csv.DictReader(text.splitlines(keepends=True)))


def test_each_image_has_a_line_with_every_digit_of_its_scores():
    (line,) = table_of([PLAIN])
    assert line["id"] == PLAIN.id
    assert {name: float(line[name]) for name in SCORES if name != "is_outlier"} == {
        name: value for name, value in SCORES.items() if name != "is_outlier"
    }
    assert (line["is_outlier"], line["is_foreign"], line["rank"], line["status"]) == ("false", "true", "1", "ok")
    assert (line["reliability"], line["error"], line["reason"]) == ("low", "", "")
    assert not [name for name in line if name.startswith("shapley")]


@pytest.mark.parametrize("chunks", [([FAILED, EXPLAINED],), ([FAILED], [EXPLAINED])])
def test_attributions_have_columns_even_where_the_first_images_failed(chunks):
    failed, explained = table_of(*chunks)
    assert (failed["id"], failed["status"], failed["error"]) == ("a,b.png", "error", "none Send one.")
    assert {failed[name] for name in (*SCORES, "rank", "shapley size")} == {""}
    assert (explained["id"], explained["reason"]) == ("日本.png", "hue is off; size too")
    assert (explained["minimal_set"], explained["nearest"]) == ("hue; size", "x.png; y.png")
    assert (explained["shapley size"], explained["conditional_z size"], explained["shapley hue"]) == ("2.5", "-1.5", "")
