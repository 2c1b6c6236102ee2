"""Settings of the service from the environment: CORS and the base path."""

import pytest

from catsdogs_lib.common.errors import SettingsError
from catsdogs_lib.serving.settings import ServiceSettings


@pytest.mark.parametrize(
    ("written", "origins"),
    [
        ("", ()),
        ("https://a.example", ("https://a.example",)),
        (" https://a.example/ , http://localhost:3000,", ("https://a.example", "http://localhost:3000")),
        ("*", ("*",)),
    ],
)
def test_origins_are_a_list_with_commas(monkeypatch, written, origins):
    monkeypatch.setenv("CATSDOGS_CORS_ORIGINS", written)
    assert ServiceSettings.from_environment().cors_origins == origins


@pytest.mark.parametrize("origin", ["a.example", "https://a.example/path", "https://", "null", "https://*.example/x"])
def test_what_is_no_origin_is_refused_by_name(monkeypatch, origin):
    monkeypatch.setenv("CATSDOGS_CORS_ORIGINS", f"https://b.example,{origin}")
    with pytest.raises(SettingsError, match="CATSDOGS_CORS_ORIGINS"):
        ServiceSettings.from_environment()


@pytest.mark.parametrize(
    ("written", "path"), [("", ""), ("/", ""), ("prod", "/prod"), ("/prod/", "/prod"), ("/api/v1", "/api/v1")]
)
def test_a_base_path_is_written_with_or_without_slashes(monkeypatch, written, path):
    monkeypatch.setenv("CATSDOGS_BASE_PATH", written)
    assert ServiceSettings.from_environment().base_path == path


@pytest.mark.parametrize("written", ["a//b", "a b", "https://a.example", "a?b", "a\nb"])
def test_what_is_no_base_path_is_refused_by_name(monkeypatch, written):
    monkeypatch.setenv("CATSDOGS_BASE_PATH", written)
    with pytest.raises(SettingsError, match="CATSDOGS_BASE_PATH"):
        ServiceSettings.from_environment()
