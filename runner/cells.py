"""Text by the columns of a terminal that it takes: measured, cut, wrapped. Pure."""

from unicodedata import category, combining, east_asian_width


def columns(text: str) -> int:
    """How many columns of a terminal *text* takes."""
    return len(text) if text.isascii() else sum(_columns_of(letter) for letter in text)


def _columns_of(letter: str) -> int:
    if combining(letter) or category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if east_asian_width(letter) in ("W", "F") else 1


def cut(text: str, width: int) -> str:
    """*text* in at most *width* columns, an ellipsis where some of it is left out."""
    text = text.replace("\n", " ").replace("\t", " ")
    if columns(text) <= width:
        return text
    taken, used = [], 1
    for letter in text:
        used += _columns_of(letter)
        if used > width:
            break
        taken.append(letter)
    return "".join(taken).rstrip() + "…" if width > 0 else ""


def padded(text: str, width: int, *, left: bool = True) -> str:
    """*text* with space up to *width* columns: it stands at the *left*, else at the right."""
    space = " " * max(0, width - columns(text))
    return text + space if left else space + text


def wrapped(text: str, width: int, most: int = 1000) -> list[str]:
    """*text* in at most *most* lines of at most *width* columns, ended between words; the last is cut where it must."""
    lines, line = [], ""
    for word in text.split():
        if line and columns(line) + 1 + columns(word) > width:
            lines.append(line)
            line = ""
        line = f"{line} {word}" if line else cut(word, width)
    lines += [line] if line else []
    return lines if len(lines) <= most else [*lines[: most - 1], cut(" ".join(lines[most - 1 :]), width)]
