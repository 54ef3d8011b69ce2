"""What a browser sends and shows: pages, forms with empty fields, pictures, and the forms of answers."""

import csv
import io
import zipfile
from pathlib import Path

import bodies
import pytest
from PIL import Image

BATCH = Path(__file__).parents[1] / "data" / "shapes3d_batch.zip"
MISFITS = {"14.png", "35.png", "49.png", "58.png"}
BROWSER = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"


@pytest.fixture(scope="module")
def files():
    with zipfile.ZipFile(BATCH) as batch:
        return {name: batch.read(name) for name in batch.namelist() if name.endswith(".png")}


@pytest.fixture(scope="module")
def clean(files):
    return {name: content for name, content in files.items() if name not in MISFITS}


def ask(client, path, parts, accept="*/*", **query):
    content_type, content = bodies.as_form(parts)
    return client.post(path, content=content, params=query, headers={"Content-Type": content_type, "Accept": accept})


def picture(answer) -> Image.Image:
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png"), answer.text
    return Image.open(io.BytesIO(answer.content))


def test_the_pages_say_what_misfit_is_and_show_the_document(client):
    index, docs = client.get("/"), client.get("/docs")
    assert index.status_code == docs.status_code == 200
    assert "do not belong" in index.text
    assert 'href="./docs"' in index.text
    script = client.get("/page/start.js")
    assert (script.status_code, script.headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    assert client.get("/page/no-such.js").status_code == 404
    assert "swagger-ui" in docs.text
    assert "./docs.json" in client.get("/static_content/swagger-initializer.js").text


def test_a_form_as_swagger_ui_sends_it_gives_the_sheet(client, files):
    empty = [("reference", None, b""), ("context", "blob", b""), ("options", "blob", b"{}")]
    defaults = {"resize": "fit", "foreign": "flag", "threshold": "0.5", "nearest": "0", "duplicates": "off"}
    defaults |= {"attributions": "none", "top": "3", "page": "1"}
    answer = ask(client, "/score", [*bodies.form_of(dict(list(files.items())[:2])), *empty], "image/png", **defaults)
    assert picture(answer).width > 2 * 128
    assert "blob:" in answer.headers["content-security-policy"]


def test_every_form_of_scores_says_the_same(client, files):
    parts = bodies.form_of(files)
    items = ask(client, "/score", parts).json()["items"]
    assert {item["id"] for item in items if item["is_outlier"]} == MISFITS
    table = ask(client, "/score", parts, "text/csv")
    assert table.headers["content-type"] == "text/csv; charset=utf-8"
    assert table.headers["content-disposition"] == 'attachment; filename="misfit.csv"'
    lines = list(csv.DictReader(io.StringIO(table.text, newline="")))
    assert [(line["id"], float(line["outlier_score"])) for line in lines] == [
        (item["id"], item["outlier_score"]) for item in items
    ]
    assert picture(ask(client, "/score", parts, BROWSER)).height > 6 * 128


def test_a_batch_without_misfits_is_no_error(client, clean):
    parts = bodies.form_of(clean)
    for path in ("/edit", "/explain"):
        assert picture(ask(client, path, parts, "image/png")).height < 128  # a note
        with zipfile.ZipFile(io.BytesIO(ask(client, path, parts, "application/zip").content)) as archive:
            assert archive.namelist() == ["answer.json"]
    answer = ask(client, "/edit", parts)
    assert (answer.status_code, answer.json()["pictures"]) == (200, [])
    assert "nothing to edit" in answer.json()["context"]["warnings"][-1]


def test_a_form_that_cannot_be_served_is_refused_before_the_work(client, files):
    for path, accept in (("/score", "text/html"), ("/fit", "image/png"), ("/edit", "text/csv")):
        answer = ask(client, path, bodies.form_of(files), accept)
        assert (answer.status_code, answer.json()["error"]["code"]) == (406, "not_acceptable")
        assert "application/json" in answer.json()["error"]["message"]


def test_an_option_that_comes_several_times_is_a_list_or_an_error(client, files):
    query = {"which": ["00.png", "01.png"]}
    assert [each["id"] for each in ask(client, "/edit", bodies.form_of(files), **query).json()["pictures"]] == [
        "00.png",
        "01.png",
    ]
    assert ask(client, "/score", bodies.form_of(files), threshold=["0.1", "0.2"]).status_code == 400
