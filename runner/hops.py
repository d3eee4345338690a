"""Say which URLs may be asked for a file, and what of them may be shown. Pure."""

from typing import Final, Self
from urllib.parse import urljoin

from yarl import URL

from runner.addresses import Reach
from runner.plain import plain
from runner.records import record

MAX_URL: Final = 16 * 1024
"""Characters. Presigned URLs have some thousands; a data URI is no URL to fetch."""

_SHOWN = 200


class FetchError(Exception):
    """
    Raised when a URL's content can't be had. *message* says why.

    Of a URL it shows scheme, host and path only: the query of a presigned one is a secret.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@record(frozen=True, slots=True)
class Hop:
    """
    One URL that may be asked, and where its host may be. As text it is what may be shown of it.

    *loopback* says whether hosts of this machine may be asked, too, also over http.
    """

    url: URL
    reach: Reach
    loopback: bool

    def __str__(self) -> str:
        return _shown(self.url)

    @classmethod
    def of(cls, text: str, *, loopback: bool) -> Self:
        """
        The hop to the URL *text*.

        Raises:
            FetchError: it may not be asked, or can't be.
        """
        if len(text) > MAX_URL:
            raise FetchError(f"a URL of {len(text)} characters is not fetched")
        if not text.isprintable():
            raise FetchError("a URL with control characters is not fetched")
        url = _read(text)
        if url is None:
            raise FetchError("it is no URL that can be read")
        if url.scheme not in ("https", "http") or not url.raw_host:
            found = f", found {plain(url.scheme)[:20]!r}" if url.scheme else ""
            raise FetchError(f"only https URLs with a host are fetched{found}")
        if "@" in url.raw_authority:
            raise FetchError(f"{_shown(url)}: a URL with a user name or password is not fetched")
        if url.scheme == "https":
            return cls(url, Reach.PUBLIC_OR_LOOPBACK if loopback else Reach.PUBLIC, loopback)
        if not loopback:
            raise FetchError(f"{_shown(url)}: only https is fetched")
        return cls(url, Reach.LOOPBACK, loopback)

    def redirected(self, location: str) -> Self:
        """
        The hop that this one's answer sends us to; *location* may be relative to it.

        Raises:
            FetchError: by the same rules, or because it leaves https for http.
        """
        try:
            to = self.of(urljoin(str(self.url), location), loopback=self.loopback)
        except FetchError as error:
            reason = error.message
        except ValueError:
            reason = "it is no URL that can be read"
        else:
            if self.url.scheme == to.url.scheme or to.url.scheme == "https":
                return to
            reason = f"{to}: from https only https is followed"
        raise FetchError(f"{self} redirects: {reason}")


def _read(text: str) -> URL | None:
    try:
        # Taken as it is where that can be: to write an escape in another way breaks the signatures of some clouds.
        url = URL(text, encoded=text.isascii() and " " not in text)
        _ = url.raw_host, url.port  # what it would find only later
    except ValueError:
        return None
    return url


def _shown(url: URL) -> str:
    """Scheme, host and path of *url*, at most 200 characters of them."""
    host = url.raw_authority.rpartition("@")[2]
    text = plain(f"{url.scheme}://{host}{url.raw_path}")
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
