"""Settings from the environment."""

import logging
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import BUNDLES, Settings, describe_problems, warn_of_unknown_variables


def test_defaults_are_the_published_limits(monkeypatch):
    monkeypatch.delenv("MISFIT_BUNDLE", raising=False)
    settings = Settings()
    assert settings.bundle == "shapes3d"
    assert settings.max_images == 10_000
    assert settings.max_body_bytes == 256 * 1024 * 1024
    assert settings.max_image_pixels == 64_000_000
    assert not settings.require_gpu


def test_variables_are_read(monkeypatch):
    monkeypatch.setenv("MISFIT_MAX_IMAGES", "5")
    monkeypatch.setenv("MISFIT_REQUIRE_GPU", "1")
    assert Settings().max_images == 5
    assert Settings().require_gpu


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_senseless_values_are_refused(monkeypatch, value):
    monkeypatch.setenv("MISFIT_MAX_IMAGES", value)
    with pytest.raises(ValidationError):
        Settings()


def test_less_in_flight_than_one_request_may_hold_is_refused():
    with pytest.raises(ValidationError, match="MISFIT_MAX_ROWS_IN_FLIGHT"):
        Settings(max_images=10, max_rows_in_flight=9)


def test_unknown_variable_is_warned_of_with_the_nearest_known(monkeypatch, caplog):
    monkeypatch.setenv("MISFIT_MAX_IMAGE", "5")
    monkeypatch.setenv("MISFIT_MAX_IMAGES", "5")
    with caplog.at_level(logging.WARNING):
        warn_of_unknown_variables()
    (record,) = caplog.records
    assert "MISFIT_MAX_IMAGE is not a setting" in record.getMessage()
    assert "MISFIT_MAX_IMAGES?" in record.getMessage()


def test_a_name_is_a_shipped_bundle_and_anything_else_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Settings(bundle=str(tmp_path)).bundle_directory == tmp_path
    assert Settings(bundle="nowhere").bundle_directory.name == "nowhere"
    if (BUNDLES / "shapes3d").is_dir():
        assert Settings(bundle="shapes3d").bundle_directory == BUNDLES / "shapes3d"


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("", ()),
        ("*", ("*",)),
        ("https://a.example/, http://LOCALHOST:8080", ("https://a.example", "http://localhost:8080")),
        ("https://a.example:443,http://b.example:80", ("https://a.example", "http://b.example")),
        ("null,http://[::1]:80,chrome-extension://abc", ("null", "http://[::1]", "chrome-extension://abc")),
    ],
)
def test_origins_are_those_that_a_browser_sends(monkeypatch, text, origins):
    monkeypatch.setenv("MISFIT_CORS_ORIGINS", text)
    assert Settings().cors_origins == origins


@pytest.mark.parametrize("text", ["a.example", "https://a.example/path", "https://*.example", "https://a.example x"])
def test_what_no_browser_sends_as_origin_is_refused(monkeypatch, text):
    monkeypatch.setenv("MISFIT_CORS_ORIGINS", text)
    with pytest.raises(ValidationError, match="is no origin: write scheme and host"):
        Settings()


def test_problems_are_told_in_one_line_with_the_variables_names(monkeypatch):
    monkeypatch.setenv("MISFIT_MAX_IMAGES", "abc")
    monkeypatch.setenv("MISFIT_LOG_FORMAT", "xml")
    with pytest.raises(ValidationError) as caught:
        Settings()
    text = describe_problems(caught.value)
    assert text.startswith("MISFIT_MAX_IMAGES is 'abc': input should be a valid integer")
    assert "MISFIT_LOG_FORMAT is 'xml': input should be 'plain' or 'json'." in text
    monkeypatch.undo()
    with pytest.raises(ValidationError) as caught:
        Settings(max_images=10, max_rows_in_flight=9)
    assert describe_problems(caught.value).startswith("what may be in flight is less than")


def test_bundles_are_read_with_their_names(monkeypatch):
    monkeypatch.setenv("MISFIT_BUNDLES", "dsprites, mine = /bundles/mine,")
    assert Settings().more_bundles == {"dsprites": BUNDLES / "dsprites", "mine": Path("/bundles/mine")}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("A=shapes3d", "'A' is no name"),
        ("/bundles/mine", "is no name: write small letters"),
        ("=shapes3d", "'' is no name"),
        ("dsprites,dsprites=shapes3d", "'dsprites' names two bundles"),
        (",".join(f"b{number}=shapes3d" for number in range(17)), "at most 16"),
    ],
)
def test_names_that_bundles_cannot_have_are_refused(monkeypatch, value, text):
    monkeypatch.setenv("MISFIT_BUNDLES", value)
    with pytest.raises(ValidationError) as refused:
        Settings()
    assert text in describe_problems(refused.value)


def test_a_bundle_may_have_lower_limits_of_its_own(monkeypatch):
    monkeypatch.setenv("MISFIT_BUNDLES", "mnist,dsprites")
    monkeypatch.setenv("MISFIT_BUNDLE_LIMITS", '{"mnist": {"max_images": 7, "timeout_seconds": 2.5}}')
    settings = Settings()
    assert (settings.of_bundle("mnist").max_images, settings.of_bundle("mnist").timeout_seconds) == (7, 2.5)
    assert settings.of_bundle("dsprites") == settings.of_bundle("") == settings


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ('{"other": {"max_images": 7}}', "names 'other', which is none of MISFIT_BUNDLES"),
        ('{"mnist": {"max_images": 100000}}', "raises max_images of 'mnist' to 100000 from 10000"),
        ('{"mnist": {"max_imags": 7}}', "max_imags"),
        ('{"mnist": {"max_images": 0}}', "greater than 0"),
    ],
)
def test_limits_that_a_bundle_cannot_have_are_refused(monkeypatch, limits, text):
    monkeypatch.setenv("MISFIT_BUNDLES", "mnist")
    monkeypatch.setenv("MISFIT_BUNDLE_LIMITS", limits)
    with pytest.raises(ValidationError, match=text):
        Settings()
