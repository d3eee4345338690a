"""Build HTML out of parts, so that no text is ever taken for markup: what is not `Html` is escaped, always."""

from collections.abc import Iterable
from html import escape
from urllib.parse import quote

from runner.plain import plain


class Html:
    """Markup. Only this module makes it."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class Address:
    """Where a link may lead: only the functions below make one, so that no text becomes ``javascript:``."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


Part = Html | str | int | None | Iterable["Part"]
"""What may stand in an element: markup, text, a number, nothing, or several of these."""

Value = str | int | float | bool | Address | None
"""What an attribute may have: None and False leave it out, True needs no value."""

EMPTY = frozenset({"br", "hr", "img", "link", "meta"})
DRAWN = frozenset({"circle", "line", "path", "rect", "use"})
"""Elements of SVG that have no content; with a title they have."""

ADDRESSES = frozenset({"href", "src"})


def tag(element: str, /, *parts: Part, **attributes: Value) -> Html:
    """
    The *element* with *parts* in it. ``class_`` is the attribute class, ``aria_label`` is aria-label.

    ``href`` and ``src`` take an `Address`.
    """
    words = "".join(_attribute(word, value) for word, value in attributes.items())
    if element in EMPTY:
        return Html(f"<{element}{words}>")
    inner = _inner(parts)
    if element in DRAWN and not inner:
        return Html(f"<{element}{words}/>")
    return Html(f"<{element}{words}>{inner}</{element}>")


def join(*parts: Part) -> Html:
    """*parts*, one after the other."""
    return Html(_inner(parts))


def below(folder: str, path: str) -> Address:
    """The file at *path*, relative to the page; *folder* is where it starts, empty for the page's own."""
    start = quote(folder.rstrip("/"), safe="/", errors="replace")
    return Address(f"{start or '.'}/{quote(path, safe='/', errors='replace')}")


def dot(colour: str) -> Address:
    """A picture of a dot in *colour*, six hex digits, that is in the page itself."""
    circle = f"<circle cx='4' cy='4' r='4' fill='#{colour}'/>"
    svg = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'>{circle}</svg>"
    return Address(f"data:image/svg+xml,{quote(svg, safe=' =/:')}")


def safe(text: str) -> str:
    """*text* as it stands in a page: nothing that a browser acts on, no control or direction marks."""
    return escape(plain(text), quote=True)


def weight_bytes(text: str) -> int:
    """How many bytes *text* takes in a page."""
    return len(safe(text).encode())


def cut(text: str, most_bytes: int) -> str:
    """*text*, shortened so that it takes about *most_bytes* in a page, however much of it must be escaped."""
    text = text[:most_bytes]
    if weight_bytes(text) <= most_bytes:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if weight_bytes(text[:middle]) <= most_bytes:
            low = middle
        else:
            high = middle - 1
    return text[:low]


def trusted(text: str, *, within: str) -> Html:
    """A style sheet or a script of this package, as the content of the element *within*; it is never escaped."""
    assert f"</{within}" not in text.lower(), f"it would end its <{within}>"
    return Html(text)


def _attribute(word: str, value: Value) -> str:
    name = word.rstrip("_").replace("_", "-")
    assert (name in ADDRESSES) <= isinstance(value, Address), f"{name} needs an address"
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    if isinstance(value, Address):
        return f' {name}="{escape(value.text, quote=True)}"'
    return f' {name}="{safe(value) if isinstance(value, str) else value}"'


def _inner(parts: Iterable[Part]) -> str:
    return "".join(map(_text, parts))


def _text(part: Part) -> str:
    if isinstance(part, Html):
        return part.text
    if isinstance(part, str):
        return safe(part)
    if part is None:
        return ""
    return str(part) if isinstance(part, int) else _inner(part)
