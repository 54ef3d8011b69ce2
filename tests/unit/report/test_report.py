"""Reports as files: what is in them, what cannot become markup, how large they get. `make pages` opens them."""

import base64
import gzip
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from service.api.score_records import GroupSummary, ScoreRow, ScoresTable, TableInfo
from service.errors import InvalidInput
from service.images.pictures import png
from service.report import report
from service.report.document import WEB, join_modules
from service.report.report import Pictures, select_outlying, write_report

HOSTILE = ["<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "a\"'&\u2028\udcff.png"]


def scored(number, *, flagged=False, group="", **values):
    row = ScoreRow(
        group,
        f"{number:04}.png",
        f"/there/{number:04}.png",
        number + 1,
        5.0 - number,
        0.9 if flagged else 0.1,
        flagged,
        False,
        20.0 if flagged else 5.0,
        "scale is off",
        nearest=json.dumps([{"id": "0001.png", "distance": 0.25}]),
        attributions=json.dumps({"scale": 3.0, "shape": -0.5}),
    )
    return replace(row, **values)


def table(rows, **summary):
    names = dict.fromkeys(row.group for row in rows)
    values = {"contamination": 0.05, "reliability": "low", "estimator": "ensemble", "warnings": ("Look twice.",)}
    groups = {name: GroupSummary(len(rows), 0, 1, **{**values, **summary}) for name in names}
    return ScoresTable(rows, TableInfo("982bbf1f2d96", "shapes3d", {"fdr": 0.1}, groups))


class Elements(HTMLParser):
    """The elements of a document, each with its attributes, and the text within scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts = [], {}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        tag, attributes = self.elements[-1] if self.elements else ("", {})
        self.texts.setdefault(attributes.get("id") or attributes.get("type") or tag, data)


def written(path, content, **options):
    write_report(path, content, **options)
    parsed = Elements(path.read_text(encoding="utf-8"))
    return parsed, json.loads(gzip.decompress(base64.b64decode(parsed.texts["report"])))


def test_a_report_holds_its_table(tmp_path):
    scores = ("rank", "outlier_score", "outlier_probability", "is_outlier", "is_foreign", "mahalanobis_squared")
    unreadable = scored(2, **dict.fromkeys(scores), reason="", error="No image.", nearest="[]", attributions="{}")
    rows = [scored(1), unreadable, scored(0, flagged=True)]
    _, data = written(tmp_path / "r.html", table(rows), title="Screws", live_latents=6, drift={"": 1.25})
    assert data["columns"]["id"] == ["0000.png", "0001.png", "0002.png"]  # by rank, unreadable last
    assert data["columns"]["outlier_probability"] == [0.9, 0.1, None]
    assert data["columns"]["nearest"][0] == [{"id": "0001.png", "distance": 0.25}]
    assert data["columns"]["attributions"][0] == {"scale": 3.0, "shape": -0.5}
    assert data["columns"]["error"][2] == "No image."
    (group,) = data["groups"]
    assert (group["images"], group["flagged"], group["unreadable"], group["drift"]) == (3, 1, 1, 1.25)
    assert (data["title"], data["warnings"], data["live_latents"]) == ("Screws", ["Look twice."], 6)
    assert ["Options", "fdr=0.1"] in data["facts"]


def test_probabilities_that_are_the_same_for_all_are_left_out(tmp_path):
    """A folder as varied as what was learned: all images have the share of outliers that any batch may have."""
    varied = [scored(number, outlier_probability=0.128) for number in range(3)]
    foreign = scored(3, flagged=True, outlier_probability=1.0, is_foreign=True)
    _, data = written(tmp_path / "r.html", table([foreign, *varied]))
    assert data["columns"]["outlier_probability"] == [1.0, None, None, None]
    assert data["groups"][0]["contamination"] is None
    told = [scored(4, group="told"), scored(5, group="told", outlier_probability=0.2), scored(6, group="single")]
    _, data = written(tmp_path / "r.html", table([*varied, *told]))
    by_name = dict(zip(data["columns"]["id"], data["columns"]["outlier_probability"], strict=True))
    assert by_name == {f"{number:04}.png": None for number in range(3)} | {
        "0004.png": 0.1,
        "0005.png": 0.2,
        "0006.png": 0.1,
    }
    assert [group["contamination"] for group in data["groups"]] == [None, 0.05, 0.05]


def test_no_text_of_a_table_becomes_markup(tmp_path):
    """Ids, paths, reasons, errors, groups, warnings, latents and titles come from whoever named the files."""
    plain, _ = written(tmp_path / "plain.html", table([scored(0)]), title="plain")
    for text in HOSTILE:
        readable = text.replace("\udcff", "\ufffd")
        row = scored(0, id=text, path=text, reason=text, error=text, group=text, attributions=json.dumps({text: 1.0}))
        hostile, data = written(tmp_path / "hostile.html", table([row], warnings=(text,)), title=text)
        policy = {"http-equiv": "Content-Security-Policy"}
        assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in plain.elements]
        assert [each for each in hostile.elements if policy.items() <= each[1].items()]
        assert hostile.texts["module"] == plain.texts["module"]
        assert data["columns"]["id"] == [readable]


def test_a_report_loads_nothing_and_runs_its_own_script_only(tmp_path):
    parsed, _ = written(tmp_path / "r.html", table([scored(0)]))
    (policy,) = (
        attributes["content"]
        for _, attributes in parsed.elements
        if "content" in attributes and "http-equiv" in attributes
    )
    digest = base64.b64encode(hashlib.sha256(parsed.texts["module"].encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{digest}'" in policy
    addresses = [
        attributes[name] for _, attributes in parsed.elements for name in ("src", "href") if name in attributes
    ]
    assert all(address.startswith("data:") for address in addresses)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", (tmp_path / "r.html").read_text())


def test_modules_become_functions_in_the_order_of_their_imports():
    script = join_modules("report")
    defined = re.findall(r"^modules\.(\w+) = ", script, re.MULTILINE)
    used = {name: script.index(f"= modules.{name};") for name in defined[:-1]}
    assert all(script.index(f"modules.{name} = ") < place for name, place in used.items())
    assert not re.search(r"^(import|export) ", script, re.MULTILINE)
    assert "</" not in script
    assert defined[-1] == "report"
    assert set(defined) == {path.stem for path in WEB.glob("*.js")}


def test_thumbnails_are_tiles_of_sheets_and_failures_leave_gaps(tmp_path):
    def read(row):
        if row.id == "0001.png":
            raise OSError("gone")
        if row.id == "0002.png":
            return None
        if row.id == "0003.png":
            return b"no image"
        return np.full((20, 40, 3), 200, dtype=np.uint8)

    parsed, data = written(tmp_path / "r.html", table([scored(n) for n in range(105)]), read_image=read)
    assert data["thumbnails"]["tiles"]["0"] == [0, 2.0]
    assert data["thumbnails"]["tiles"]["4"] == [1, 2.0]
    assert not {"1", "2", "3"} & set(data["thumbnails"]["tiles"])
    sheets = [attributes for _, attributes in parsed.elements if attributes.get("class") == "sheet"]
    assert len(sheets) == 2  # 102 tiles


def test_pictures_are_shown_as_far_as_the_budget_reaches(tmp_path, monkeypatch):
    picture = png.to_png(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    rows = [scored(n, flagged=True) for n in range(3)]
    pictures = {1: Pictures(heat_maps={"scale": picture}, counterfactual=picture, caption="scale changed")}
    _, data = written(tmp_path / "r.html", table(rows), pictures=pictures)
    assert list(data["pictures"]) == ["1"]
    assert data["pictures"]["1"]["heat_maps"][0]["image"].startswith("data:image/webp;base64,")
    assert data["pictures"]["1"]["counterfactual"]["caption"] == "scale changed"
    monkeypatch.setattr(report, "PICTURE_BUDGET", 100)
    _, data = written(tmp_path / "r.html", table(rows), pictures=pictures)
    assert data["pictures"] == {}
    assert "the report is full" in data["warnings"][-1]


def test_a_large_table_lists_the_most_outlying_and_draws_a_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MOST_IMAGES", 10)
    monkeypatch.setattr(report, "MOST_DISTANCES", 50)
    rows = [scored(n, flagged=n < 3, rank=100 - n, outlier_score=float(n)) for n in range(100)]
    _, data = written(tmp_path / "r.html", table(rows))
    assert data["columns"]["id"][:4] == ["0002.png", "0001.png", "0000.png", "0099.png"]
    assert len(data["columns"]["id"]) == 10
    assert (data["sample"]["every"], len(data["sample"]["distance"])) == (2, 50)
    assert data["groups"][0]["images"] == 100
    assert "10 most outlying of 100 images" in data["warnings"][-1]


def test_of_many_latents_the_largest_shares_are_shown(tmp_path):
    shares = {f"content {n}": (-1) ** n * float(n) for n in range(100)}
    _, data = written(tmp_path / "r.html", table([scored(0, attributions=json.dumps(shares))]))
    (shown,), (left_out,) = data["columns"]["attributions"], data["columns"]["attributions_left_out"]
    assert (list(shown)[:2], len(shown), left_out) == (["content 99", "content 98"], 24, 76)


def test_numbers_that_json_cannot_hold_are_left_out(tmp_path):
    row = scored(0, outlier_score=float("inf"), mahalanobis_squared=float("nan"), attributions='{"scale": NaN, "a": 1}')
    _, data = written(tmp_path / "r.html", table([row]))
    assert (data["columns"]["outlier_score"], data["columns"]["mahalanobis_squared"]) == ([None], [None])
    assert data["columns"]["attributions"] == [{"a": 1.0}]


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("nearest", "{"),
        ("nearest", '{"id": 1}'),
        ("nearest", '["a"]'),
        ("attributions", "[]"),
        ("attributions", '{"a": "b"}'),
    ],
)
def test_texts_of_another_form_are_refused_by_name(tmp_path, column, text):
    with pytest.raises(InvalidInput, match=rf"{column} of the image '0000.png' is .*expected"):
        write_report(tmp_path / "r.html", table([scored(0, **{column: text})]))
    assert not list(tmp_path.iterdir())


def test_a_table_without_rows_is_refused_and_one_without_metadata_is_not(tmp_path):
    with pytest.raises(InvalidInput, match="no rows"):
        write_report(tmp_path / "r.html", ScoresTable([]))
    _, data = written(tmp_path / "r.html", ScoresTable([scored(0)]))
    assert data["groups"][0]["contamination"] is None


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "r.html", tmp_path / "folder"):
        with pytest.raises(OSError, match=re.escape(str(path))):
            write_report(path, table([scored(0)]))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]
    write_report(tmp_path / "new" / "folder" / "r.html", table([scored(0)]))


def test_the_most_outlying_flagged_images_are_selected():
    rows = [scored(0), scored(1, flagged=True), scored(2, flagged=True, is_foreign=True), scored(3, flagged=True)]
    assert select_outlying(rows, 2) == [2, 1]
