import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.plain import plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("héllo wörld", "héllo wörld", id="ordinary text"),
        pytest.param("a\tb\nc", "a\tb\nc", id="tab and line end"),
        pytest.param("\x1b[1;31mred\x1b[0m", "red", id="colour"),
        pytest.param("\x9b31mred", "red", id="8-bit colour"),
        pytest.param("\x1b]0;title\x07text", "text", id="window title"),
        pytest.param("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link", id="hyperlink"),
        pytest.param("\x1b]0;never ended", "]0;never ended", id="unended sequence keeps its text"),
        pytest.param("\x1bcafter a reset", "after a reset", id="terminal reset"),
        pytest.param("50%\r100%\r\ndone", "50%\n100%\ndone", id="overwritten line"),
        pytest.param("a\x00b\x08c\x7fd", "abcd", id="control characters"),
        pytest.param("abc\u202efed", "abcfed", id="text direction"),
        pytest.param("\ud800x", "x", id="lone surrogate"),
    ],
)
def test_only_what_a_person_can_read_is_left(text: str, shown: str) -> None:
    """A handler's error is shown on terminals, and must not be able to act on them."""
    assert plain(text) == shown


@given(st.text())
def test_any_text_becomes_harmless(text: str) -> None:
    """Whatever a worker sends, no escape is left, the text can be written to a file, and doing it twice is the same."""
    shown = plain(text)
    assert all(c.isprintable() or c in "\t\n" or not c.isascii() for c in shown)
    assert "\x1b" not in shown
    shown.encode()
    assert plain(shown) == shown
