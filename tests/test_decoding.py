"""The bytes of artifacts: what each kind takes, what it says of anything else, and that nothing large is decoded."""

import base64
import tracemalloc

import pytest

from runner.decoding import ArtifactError, content, declared

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
TEXT = base64.b64encode(PNG).decode()
MOST = 256 * 1024 * 1024


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        pytest.param("base64", TEXT, PNG, id="base64"),
        pytest.param("base64", "aGk\n aGk==", base64.b64decode("aGkaGk=="), id="spaces and lines"),
        pytest.param("data_uri", f"data:image/png;base64,{TEXT}", PNG, id="data URI"),
        pytest.param("data_uri", "data:;base64,", b"", id="empty"),
        pytest.param("data_uri", "data:text/plain;charset=utf-8,a%20b", b"a b", id="percent-encoded"),
        pytest.param("data_uri", "data:,a%2", b"a%2", id="an escape that is cut"),
        pytest.param("data_uri", "data:," + "%41" * 100_000, b"A" * 100_000, id="nothing but escapes"),
        pytest.param("data_uri", "data:,ä" + "x" * 65_534 + "%41%4", "ä".encode() + b"x" * 65_534 + b"A%4", id="long"),
        pytest.param("text", "grüß", "grüß".encode(), id="text"),
        pytest.param("json", None, b"null\n", id="null as JSON"),
    ],
)
def test_what_a_file_is_made_of(kind: str, value: object, expected: bytes) -> None:
    """Each kind takes one form."""
    assert content(kind, value, MOST) == expected


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        pytest.param("base64", [TEXT], "expected a text in base64, found a list", id="a list"),
        pytest.param("base64", "a_b-", "this is not base64: character '_' at 2", id="another alphabet"),
        pytest.param("base64", "abc", "this is not base64: 3 characters, not whole groups", id="cut"),
        pytest.param(
            "base64",
            "data:image/png;base64,AAAA",
            "expected a text in base64, found a data URI: write 'data_uri' in place of 'base64'",
            id="a data URI",
        ),
        pytest.param("data_uri", "AAAA", "expected a data URI, found 'AAAA'", id="no data URI"),
        pytest.param(
            "data_uri", "data:,\ud800", "this text has a lone surrogate, which no file in UTF-8 can have", id="odd URI"
        ),
        pytest.param("text", {"a": 1}, "expected a text, found a mapping", id="no text"),
        pytest.param(
            "text", "\ud800", "this text has a lone surrogate, which no file in UTF-8 can have", id="a surrogate"
        ),
    ],
)
def test_what_is_no_such_thing_is_named(kind: str, value: object, said: str) -> None:
    """The message says what was found, so that the template can be mended."""
    with pytest.raises(ArtifactError) as caught:
        content(kind, value, MOST)
    assert str(caught.value) == said


def test_what_was_found_is_cut_short_in_a_message() -> None:
    """A megabyte of base64 in an error helps nobody."""
    with pytest.raises(ArtifactError) as caught:
        content("data_uri", "x" * 1_000_000, MOST)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("kind", "value", "size"),
    [
        pytest.param("base64", "AAAA" * 2_000_000, "5.7 MiB", id="base64"),
        pytest.param("data_uri", "data:image/png;base64," + "AAAA" * 2_000_000, "5.7 MiB", id="base64 in a data URI"),
        pytest.param("data_uri", "data:," + "%41" * 2_000_000, "1.9 MiB", id="escapes"),
        pytest.param("text", "a" * 6_000_000, "5.7 MiB", id="text"),
    ],
)
def test_what_is_too_large_is_not_decoded(kind: str, value: str, size: str) -> None:
    """A worker's word must not fill the memory on the way to being refused."""
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError) as caught:
            content(kind, value, 1_000_000)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(caught.value) == f"an artifact of {size}, and 976.6 KiB is the most"
    assert peak_bytes < 2.5 * len(value)  # base64 without its spaces is one copy


@pytest.mark.parametrize(
    ("value", "most_bytes", "fits"),
    [("AAEC", 3, True), ("AAEC", 2, False), ("AAE=", 2, True), ("AA==", 1, True), ("AA==", 0, False)],
)
def test_a_limit_is_exact(value: str, most_bytes: int, fits: bool) -> None:
    """Padding is no content."""
    if fits:
        assert len(content("base64", value, most_bytes)) == most_bytes
        return
    with pytest.raises(ArtifactError, match="is the most"):
        content("base64", value, most_bytes)


def test_what_a_file_is_said_to_be() -> None:
    """By its data URI, or by the job file, which says text or json."""
    assert declared("data_uri", f"data:image/png;charset=x;base64,{TEXT}") == "image/png;charset=x"
    assert declared("data_uri", "data:,a") == ""
    assert [declared(kind, TEXT) for kind in ("text", "json", "base64")] == ["text/plain", "application/json", None]
    assert declared("data_uri", 3) is None
