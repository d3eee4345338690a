"""Tables of a page. Pure."""

from collections.abc import Collection, Iterable, Sequence

from runner.page.html import Html, Part, tag


def table(
    columns: Sequence[str], rows: Iterable[Sequence[Part]], *, texts: Collection[int] = (0,), folds: bool = False
) -> Html:
    """
    A table; the columns in *texts* hold words, all others numbers, which stand at the right.

    One that *folds* becomes a list on a narrow page, each cell with the name of its column.
    """
    head = tag("tr", [tag("th", name, class_=_kind(at, texts), scope="col") for at, name in enumerate(columns)])
    body = [
        tag(
            "tr",
            [
                tag("td", cell, class_=_kind(at, texts), data_label=columns[at] if folds and at else None)
                for at, cell in enumerate(row)
            ],
        )
        for row in rows
    ]
    return tag("table", tag("thead", head), tag("tbody", body), class_="folds" if folds else None)


def facts(pairs: Iterable[tuple[str, Part]]) -> Html:
    """Names with what they stand for; pairs without anything are left out."""
    shown = [(name, value) for name, value in pairs if value not in (None, "")]
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in shown], class_="facts")


def _kind(at: int, texts: Collection[int]) -> str | None:
    return "t" if at in texts else None
