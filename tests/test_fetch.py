"""Guarded downloads, over real sockets: what comes, what doesn't, and what nobody is ever asked for."""

import asyncio
import gzip
import socket
import ssl
import threading
import traceback
from collections.abc import AsyncIterator, Callable
from pathlib import Path, PosixPath
from typing import IO, Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from fake_http import RawServer, Reply, Then, answer
from hypothesis import given, settings
from hypothesis import strategies as st
from terminal import HERE

from runner import fetch
from runner.fetch import Fetcher, FetchError, Limits, open_fetcher

OK = Reply(answer(b"content"))
SECRET = "X-Amz-Signature=deadbeef"
GONE = Reply(answer(b"", status="404 Not Found"))
BUSY = Reply(answer(b"", status="503 Busy"))
FAILED = Reply(answer(b"", status="500 Failed"))


class Hurried:
    """A clock that never waits; *slept* tells what was asked of it."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> float:
        return 1_800_000_000.0

    def monotonic(self) -> float:
        return 0.0

    def chance(self) -> float:
        return 0.0

    async def sleep(self, delay_s: float) -> None:
        self.slept.append(delay_s)
        await asyncio.sleep(0)


class Names(AbstractResolver):
    """A DNS of our own: *known* says which addresses a name has."""

    def __init__(self, **known: str | list[str]) -> None:
        self.known = {name.replace("_", "."): [one] if isinstance(one, str) else one for name, one in known.items()}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if host not in self.known:
            raise socket.gaierror(-2, "Name or service not known")
        return [
            {"hostname": host, "host": one, "port": port, "family": family, "proto": 0, "flags": 0}
            for one in self.known[host]
        ]

    async def close(self) -> None:
        pass


class TlsServer(RawServer):
    """The same over TLS; only `trusting` clients accept its certificate."""

    async def __aenter__(self) -> "TlsServer":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(HERE / "data/tls.pem")
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients trust the certificate of `TlsServer`, as if it were a public one."""
    context = ssl.create_default_context(cafile=HERE / "data/tls.pem")
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", context)


@pytest.fixture
def clock() -> Hurried:
    return Hurried()


@pytest.fixture
async def fetcher(clock: Hurried) -> AsyncIterator[Fetcher]:
    async with open_fetcher(clock=clock, resolver=Names(localhost="127.0.0.1")) as opened:
        yield opened


@pytest.fixture
def to(tmp_path: Path) -> Path:
    """Where the content goes."""
    return tmp_path / "content"


def nothing_at(to: Path) -> bool:
    """Whether neither the file nor anything else was left in its folder."""
    return list(to.parent.iterdir()) == []


async def refused(fetcher: Fetcher, url: str, to: Path, *, loopback: bool = True, **options: Any) -> str:
    """Why *url* can't be had; nothing may be left behind, and no query may be shown, wherever one looks."""
    with pytest.raises(FetchError) as caught:
        await fetcher.fetch(url, to, loopback=loopback, **options)
    assert nothing_at(to)
    assert "deadbeef" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.message == str(caught.value)
    return caught.value.message


# What comes


@pytest.mark.parametrize("length", [0, 7, 3_000_000])
async def test_content_is_written_as_it_came(fetcher: Fetcher, to: Path, length: int) -> None:
    """Byte for byte, also over many batches, and of a host by name."""
    body = (b"0123456789" * (length // 10 + 1))[:length]
    async with RawServer(Reply(answer(body))) as server:
        await fetcher.fetch(f"http://localhost:{server.port}/a%2Fb?{SECRET}%2f", to, loopback=True)
    assert to.read_bytes() == body
    # As it was given: to write an escape in another way breaks signatures.
    assert server.requests[0].head.startswith(f"GET /a%2Fb?{SECRET}%2f HTTP/1.1\r\n")


async def test_nothing_of_ours_is_sent(fetcher: Fetcher, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, no cookie, no proxy: whoever named the URL reads the request."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_PLANTED0KEY")
    async with RawServer(Reply(answer(b"", headers=["Set-Cookie: a=b"])), OK) as server:
        await fetcher.fetch(server.url, to, loopback=True)
        await fetcher.fetch(server.url, to.with_name("other"), loopback=True)
    lines = [line.partition(":")[0] for request in server.requests for line in request.head.splitlines() if line]
    assert lines == ["GET / HTTP/1.1", "Host", "Accept-Encoding", "Accept", "User-Agent"] * 2
    assert "Accept-Encoding: identity" in server.requests[0].head
    assert "runner" not in server.requests[0].head


async def test_a_file_that_is_there_is_never_written_over(fetcher: Fetcher, to: Path) -> None:
    """It may be an artifact that was paid for. That is the caller's to mend, not the URL's."""
    to.write_text("mine")
    async with RawServer(OK) as server:
        with pytest.raises(FileExistsError):
            await fetcher.fetch(server.url, to, loopback=True)
    assert to.read_text() == "mine"


@pytest.mark.usefixtures("trusting")
async def test_content_comes_over_https(fetcher: Fetcher, to: Path) -> None:
    """From this machine, too: a local endpoint may have a certificate."""
    async with TlsServer(OK) as server:
        await fetcher.fetch(server.url, to, loopback=True)
    assert to.read_bytes() == b"content"


async def test_a_certificate_that_nobody_vouches_for_is_not_accepted(
    fetcher: Fetcher, to: Path, clock: Hurried
) -> None:
    """Nor will it be at the second try."""
    async with TlsServer(OK) as server:
        said = await refused(fetcher, server.url + "/x?" + SECRET, to)
    assert said.startswith(
        f"{server.url}/x: no connection to 127.0.0.1:{server.port}: its certificate was not accepted: "
    )
    assert clock.slept == []


async def test_compressed_content_is_written_unpacked(fetcher: Fetcher, to: Path) -> None:
    """It was not asked for, but some stores send what they were given: an image must still be one."""
    reply = Reply(answer(gzip.compress(b"content"), headers=["Content-Encoding: gzip"]))
    async with RawServer(reply) as server:
        await fetcher.fetch(server.url, to, loopback=True, max_bytes=100)
    assert to.read_bytes() == b"content"


# Where to


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://files.example/a?" + SECRET, "http://files.example/a: only https is fetched"),
        ("http://127.0.0.1:80/a", "http://127.0.0.1:80/a: only https is fetched"),
        ("ftp://files.example/a", "only https URLs with a host are fetched, found 'ftp'"),
        ("file:///etc/passwd", "only https URLs with a host are fetched, found 'file'"),
        ("data:image/png;base64,AAAA", "only https URLs with a host are fetched, found 'data'"),
        ("images/1.png", "only https URLs with a host are fetched"),
        ("", "only https URLs with a host are fetched"),
        ("https:///a", "only https URLs with a host are fetched, found 'https'"),
        ("https://files.example:99999/", "it is no URL that can be read"),
        ("https://[::1/", "it is no URL that can be read"),
        (
            "https://u:pass@files.example/a",
            "https://files.example/a: a URL with a user name or password is not fetched",
        ),
        ("https://u@files.example/a", "https://files.example/a: a URL with a user name or password is not fetched"),
        ("https://@files.example/", "https://files.example/: a URL with a user name or password is not fetched"),
        ("https://files.example/\n", "a URL with control characters is not fetched"),
        ("https://files.example/\r\nHost: x", "a URL with control characters is not fetched"),
        ("https://files.example/" + "a" * 20_000, "a URL of 20022 characters is not fetched"),
        ("https://" + "a" * 300 + ".example/", f"https://{'a' * 191}…: no request can be made of it"),
    ],
)
async def test_a_url_that_cannot_be_fetched_is_refused(to: Path, clock: Hurried, url: str, message: str) -> None:
    """At once, and without a word to anybody."""
    async with open_fetcher(clock=clock) as fetcher:
        assert await refused(fetcher, url, to, loopback=False) == message
    assert clock.slept == []


class Listening:
    """A port of this machine that notes the addresses at which anybody *connected* to it."""

    async def __aenter__(self) -> "Listening":
        self.connected: list[str] = []
        self._server = await asyncio.start_server(self._note, ["127.0.0.1"], 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self._others = await asyncio.start_server(self._note, ["127.0.0.2", "::1"], self.port)
        return self

    async def __aexit__(self, *details: object) -> None:
        for server in (self._server, self._others):
            server.close()
            await server.wait_closed()

    async def _note(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected.append(writer.get_extra_info("sockname")[0])
        writer.close()


NOT_PUBLIC = "its host is not on the public internet"


@pytest.mark.parametrize(
    "host",
    [
        *[
            "127.0.0.1",
            "127.1",
            "127.000.0.1",
            "2130706433",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "0",
            "localhost",
            "LOCALHOST",
        ],
        *["[::1]", "[::]", "[::ffff:127.0.0.1]", "[0:0:0:0:0:ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]"],
        *["loop.example", "mapped.example", "mixed.example", "127。0。0。1", "\u2460\u2461\u2466.0.0.1"],
        *["10.0.0.1", "169.254.169.254", "metadata.example", "private.example", "[fe80::1%25lo]", "[fc00::1]"],
    ],
)
async def test_only_public_addresses_are_connected_to(to: Path, clock: Hurried, host: str) -> None:
    """However an address is written, and whatever a name resolves to: what counts is where the socket would lead."""
    names = Names(
        loop_example="127.0.0.1",
        mapped_example="::ffff:127.0.0.1",
        mixed_example=["127.0.0.1", "::1"],
        metadata_example="169.254.169.254",
        private_example="::ffff:10.0.0.1",
    )
    system = aiohttp.ThreadedResolver()

    class Both(Names):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            known = host in names.known
            return await names.resolve(host, port, family) if known else await system.resolve(host, port, family)

    async with Listening() as listening, open_fetcher(clock=clock, resolver=Both()) as fetcher:
        said = await refused(fetcher, f"https://{host}:{listening.port}/a?{SECRET}", to, loopback=False)
        assert listening.connected == []
    assert said.startswith("https://")
    assert said.partition(f":{listening.port}/a: ")[2] in (NOT_PUBLIC, "no request can be made of it")
    assert clock.slept == []


async def test_of_mixed_addresses_only_the_public_ones_are_connected_to(
    to: Path, clock: Hurried, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name may be made to answer with one of each. For once 127.0.0.2 is taken for a public address."""
    monkeypatch.setattr("runner.fetch.is_within", lambda address, reach: address == "127.0.0.2")
    names = Names(mixed_example=["127.0.0.1", "127.0.0.2", "::1"])
    async with Listening() as listening, open_fetcher(clock=clock, resolver=names) as fetcher:
        await refused(fetcher, f"https://mixed.example:{listening.port}/", to, loopback=False)
        assert set(listening.connected) == {"127.0.0.2"}


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://10.0.0.1/a", "its host is not this machine, and from others only https is fetched"),
        ("http://8.8.8.8/a", "its host is not this machine, and from others only https is fetched"),
        ("http://files.example/a", "its host is not this machine, and from others only https is fetched"),
        ("https://10.0.0.1/a", "its host is neither on the public internet nor this machine"),
        ("https://169.254.169.254/a", "its host is neither on the public internet nor this machine"),
    ],
)
async def test_for_local_endpoints_it_is_this_machine_and_no_other(
    to: Path, clock: Hurried, url: str, reason: str
) -> None:
    """A handler under test may serve its files on loopback; that opens no way into the network."""
    async with open_fetcher(clock=clock, resolver=Names(files_example="8.8.8.8")) as fetcher:
        assert await refused(fetcher, url, to, loopback=True) == f"{url}: {reason}"


async def test_a_connection_of_one_kind_is_not_used_for_the_other(to: Path, clock: Hurried) -> None:
    """One to this machine, made for a local endpoint, stays open for a while, under the name it was made for."""
    async with open_fetcher(clock=clock, resolver=Names(files_example="127.0.0.1")) as fetcher:
        with pytest.MonkeyPatch.context() as patch:
            context = ssl.create_default_context(cafile=HERE / "data/tls.pem")
            patch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", context)
            async with TlsServer(OK) as server:
                url = f"https://files.example:{server.port}/"
                await fetcher.fetch(url, to, loopback=True)
                to.unlink()
                assert await refused(fetcher, url, to, loopback=False) == f"{url}: {NOT_PUBLIC}"
                assert len(server.requests) == 1


def moved(location: str, status: str = "302 Found") -> Reply:
    """A redirect."""
    return Reply(answer(b"over there", status=status, headers=[f"Location: {location}"]))


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_followed(fetcher: Fetcher, to: Path, status: str) -> None:
    """Stores hand their files out that way. A relative one counts from where it is."""
    async with RawServer(moved("../c?d", status), OK) as server:
        await fetcher.fetch(server.url + "/a/b", to, loopback=True)
    assert to.read_bytes() == b"content"
    assert [request.head.split()[1] for request in server.requests] == ["/a/b", "/c?d"]


async def test_five_redirects_are_followed_and_no_more(fetcher: Fetcher, to: Path) -> None:
    """A circle would never end."""
    async with RawServer(*[moved("/next")] * 5, OK) as server:
        await fetcher.fetch(server.url, to, loopback=True)
    to.unlink()
    async with RawServer(moved("/next?" + SECRET)) as server:
        said = await refused(fetcher, server.url, to)
    assert said == f"{server.url}/next: more than 5 redirects"
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://10.0.0.1/x?" + SECRET, None),
        ("http://169.254.169.254/latest/meta-data/", None),
        ("file:///etc/passwd", "only https URLs with a host are fetched, found 'file'"),
        ("http://u:p@127.0.0.1/x", "http://127.0.0.1/x: a URL with a user name or password is not fetched"),
        ("https://[::1/", "it is no URL that can be read"),
    ],
)
async def test_a_redirect_is_held_to_the_same_rules(
    fetcher: Fetcher, to: Path, location: str, reason: str | None
) -> None:
    """Else a harmless URL would be the way to all others."""
    async with RawServer(moved(location)) as server:
        said = await refused(fetcher, server.url + "/a", to)
    there = location.partition("?")[0]
    elsewhere = f"{there}: its host is not this machine, and from others only https is fetched"
    assert said == (elsewhere if reason is None else f"{server.url}/a redirects: {reason}")
    assert len(server.requests) == 1


@pytest.mark.usefixtures("trusting")
async def test_https_never_falls_to_http(fetcher: Fetcher, to: Path) -> None:
    """Not even to this machine: what came safely so far would go on in the open."""
    async with RawServer(OK) as plain, TlsServer(moved(plain.url + "/x?" + SECRET)) as server:
        said = await refused(fetcher, server.url, to)
        assert plain.requests == []
    assert said == f"{server.url}/ redirects: {plain.url}/x: from https only https is followed"


async def test_a_redirect_to_nowhere_is_a_status(fetcher: Fetcher, to: Path) -> None:
    """Without a Location there is nothing to follow."""
    async with RawServer(Reply(answer(b"", status="302 Found"))) as server:
        assert await refused(fetcher, server.url, to) == f"{server.url}/: HTTP 302"


# What doesn't come


@pytest.mark.parametrize("status", ["400 Bad", "403 Forbidden", "404 Not Found", "408 Timeout", "304 Not Modified"])
async def test_a_no_is_taken_for_an_answer(fetcher: Fetcher, to: Path, clock: Hurried, status: str) -> None:
    """Asked again, it would be the same: an expired signature stays expired."""
    async with RawServer(Reply(answer(b"", status=status))) as server:
        said = await refused(fetcher, f"{server.url}/a?{SECRET}", to)
    assert said == f"{server.url}/a: HTTP {status[:3]}"
    assert len(server.requests) == 1
    assert clock.slept == []


CUT = "the answer was cut short, or could not be decompressed"
CLOSED = "the connection was closed before an answer came"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        pytest.param(BUSY, "HTTP 503", id="503"),
        pytest.param(FAILED, "HTTP 500", id="500"),
        pytest.param(Reply(answer(b"", status="429 Slow Down")), "HTTP 429", id="429"),
        pytest.param(Reply(answer(b"cont", length=7), Then.CLOSE), CUT, id="shorter than its length"),
        pytest.param(
            Reply(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nco", Then.CLOSE), CUT, id="chunk cut"
        ),
        pytest.param(Reply(answer(b"no gzip at all", headers=["Content-Encoding: gzip"])), CUT, id="not gzip"),
        pytest.param(Reply(b"SSH-2.0-x\r\n\r\n"), "the answer was not HTTP", id="not HTTP"),
    ],
)
async def test_what_fails_for_the_moment_is_tried_three_times_more(
    fetcher: Fetcher, to: Path, clock: Hurried, reply: Reply, reason: str
) -> None:
    """The output is paid for, and stores have their moments."""
    async with RawServer(reply) as server:
        said = await refused(fetcher, f"{server.url}/a?{SECRET}", to)
        assert len(server.requests) == 4
    assert said == f"{server.url}/a: {reason}, tried 4 times"
    assert clock.slept == [0.25, 0.5, 1.0]


async def test_a_connection_that_is_closed_or_refused_is_tried_again(
    fetcher: Fetcher, to: Path, clock: Hurried
) -> None:
    """As is a name that is not found: resolvers have their moments, too."""
    async with RawServer(Reply(then=Then.CLOSE)) as server:
        assert await refused(fetcher, server.url, to) == f"{server.url}/: {CLOSED}, tried 4 times"
    assert await refused(fetcher, server.url, to) == (
        f"{server.url}/: no connection to 127.0.0.1:{server.port}: connection refused, tried 4 times"
    )
    assert await refused(fetcher, "https://nowhere.example/", to) == (
        "https://nowhere.example/: no connection to nowhere.example:443: its name was not found, tried 4 times"
    )
    assert len(clock.slept) == 9


async def test_each_attempt_begins_anew(fetcher: Fetcher, to: Path) -> None:
    """Nothing of a cut one may be left in the file, nor of where it was redirected to."""
    cut = Reply(answer(b"much longer cont", length=99), Then.CLOSE)
    async with RawServer(moved("/1"), cut, moved("/2"), BUSY, cut, OK) as server:
        await fetcher.fetch(server.url, to, loopback=True)
    assert to.read_bytes() == b"content"
    assert [request.head.split()[1] for request in server.requests] == ["/", "/1", "/", "/2", "/", "/"]


@pytest.mark.parametrize(("header", "slept"), [("7", 7.0), ("0", 0.25), ("soon", 0.25)])
async def test_a_server_may_ask_for_more_patience(
    fetcher: Fetcher, to: Path, clock: Hurried, header: str, slept: float
) -> None:
    """It knows best when it will do."""
    slow = Reply(answer(b"", status="429 Slow Down", headers=[f"Retry-After: {header}"]))
    async with RawServer(slow, OK) as server:
        await fetcher.fetch(server.url, to, loopback=True)
    assert clock.slept == [slept]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(answer(b"x", length=1_000_001), id="by its announced length"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (1_000_001, b"x" * 1_000_001),
            id="by what came",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1_000_001, id="without a length"),
        pytest.param(
            answer(gzip.compress(b"x" * 50_000_000), headers=["Content-Encoding: gzip"]), id="by what it unpacks to"
        ),
    ],
)
async def test_content_over_the_limit_is_not_taken(fetcher: Fetcher, to: Path, clock: Hurried, data: bytes) -> None:
    """A hostile URL must not fill the disk; and it is as long at the second try."""
    async with RawServer(Reply(data, Then.CLOSE)) as server:
        said = await refused(fetcher, f"{server.url}/a?{SECRET}", to, max_bytes=1_000_000)
    assert said == f"{server.url}/a: it is over 976.6 KiB"
    assert clock.slept == []


async def test_content_as_long_as_the_limit_is_taken(fetcher: Fetcher, to: Path) -> None:
    """The limit is the longest, not the first too long."""
    async with RawServer(OK) as server:
        await fetcher.fetch(server.url, to, loopback=True, max_bytes=7)
    assert to.read_bytes() == b"content"


# How long


@pytest.mark.parametrize(
    ("reply", "limits", "reason"),
    [
        (Reply(then=Then.HOLD), Limits(silence_s=0.02), "no answer within 20ms, tried 4 times"),
        (Reply(answer(b"cont", length=7), Then.HOLD), Limits(silence_s=0.02), "no answer within 20ms, tried 4 times"),
        (Reply(answer(b"cont", length=7), Then.HOLD), Limits(whole_s=0.1), "it took longer than 100ms"),
    ],
    ids=["silence", "silence in the middle", "the whole"],
)
async def test_patience_has_an_end(to: Path, clock: Hurried, reply: Reply, limits: Limits, reason: str) -> None:
    """A run whose artifact never comes would hold its lane for ever."""
    async with RawServer(reply) as server, open_fetcher(clock=clock, limits=limits) as fetcher:
        assert await refused(fetcher, server.url, to) == f"{server.url}/: {reason}"


async def test_a_connection_must_come_about_in_time(to: Path, clock: Hurried) -> None:
    """Here TLS never gets an answer."""
    async with RawServer(Reply(then=Then.HOLD)) as server:
        url = server.url.replace("http:", "https:")
        async with open_fetcher(clock=clock, limits=Limits(connect_s=0.02)) as fetcher:
            assert await refused(fetcher, url, to) == f"{url}/: no connection within 20ms, tried 4 times"


# Our own disk


class DiskPath(PosixPath):
    """A path on a disk that tests own: *before* is called, in a thread, with what is about to be done."""

    before: Callable[[str], object] = staticmethod(lambda what: None)
    full = False

    def open(self, mode: str = "r", *args: Any, **options: Any) -> IO[Any]:  # type: ignore[override]
        type(self).before("open")
        file = open("/dev/full" if self.full else self, "r+b" if self.full else mode)  # noqa: SIM115, PTH123
        return Disk(file, self)  # type: ignore[return-value]

    def unlink(self, missing_ok: bool = False) -> None:
        type(self).before("unlink")
        super().unlink(missing_ok)


class Disk:
    """A file there."""

    def __init__(self, file: IO[bytes], path: DiskPath) -> None:
        self._file = file
        self._path = path

    def writelines(self, pieces: list[bytes]) -> None:
        type(self._path).before("write")
        self._file.writelines(pieces)

    def close(self) -> None:
        type(self._path).before("close")
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.fixture
def disk(to: Path, monkeypatch: pytest.MonkeyPatch) -> DiskPath:
    """*to*, on such a disk."""
    monkeypatch.setattr(DiskPath, "before", DiskPath.before)
    monkeypatch.setattr(DiskPath, "full", DiskPath.full)
    return DiskPath(to)


@pytest.mark.parametrize("length", [7, 3_000_000], ids=["found at the end", "found while writing"])
async def test_a_full_disk_is_not_the_urls_fault(
    fetcher: Fetcher, disk: DiskPath, to: Path, clock: Hurried, length: int
) -> None:
    """The caller must stop then, not settle one run after the other as failed."""
    DiskPath.full = True
    async with RawServer(Reply(answer(b"x" * length))) as server:
        with pytest.raises(OSError, match="No space left on device") as caught:
            await fetcher.fetch(server.url, disk, loopback=True)
    assert caught.value.errno == 28
    assert nothing_at(to)
    assert clock.slept == []


async def test_a_folder_that_is_not_there_is_not_the_urls_fault(fetcher: Fetcher, tmp_path: Path) -> None:
    """Nor is one that can't be written."""
    async with RawServer(OK) as server:
        with pytest.raises(FileNotFoundError):
            await fetcher.fetch(server.url, tmp_path / "no" / "folder", loopback=True)


async def test_a_disk_that_times_out_is_not_the_urls_fault(fetcher: Fetcher, disk: DiskPath, to: Path) -> None:
    """Network file systems do; asyncio's own timeouts are exceptions of the same class."""

    def before(what: str) -> None:
        if what == "write":
            raise TimeoutError(110, "Connection timed out")

    DiskPath.before = staticmethod(before)
    async with RawServer(OK) as server:
        with pytest.raises(TimeoutError, match="Connection timed out"):
            await fetcher.fetch(server.url, disk, loopback=True)
    assert nothing_at(to)


@pytest.mark.parametrize("at", ["open", "write", "close", "more"])
@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
async def test_cancelling_a_download_leaves_nothing_behind(
    fetcher: Fetcher, disk: DiskPath, to: Path, at: str, times: int
) -> None:
    """Wherever it is cut off, even while a thread makes or writes the file."""
    there, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def before(what: str) -> None:
        if what == at and not there.is_set():
            there.set()
            assert go_on.wait(10)
        if what == "unlink":
            done.set()

    DiskPath.before = staticmethod(before)
    body = answer(b"x" * 1_500_000, length=1_500_000 + (at == "more"))
    async with RawServer(Reply(body, Then.HOLD)) as server, asyncio.TaskGroup() as group:
        task = group.create_task(fetcher.fetch(server.url, disk, loopback=True))
        if at == "more":
            while not to.exists() or not to.stat().st_size:  # noqa: ASYNC110 - the other side is a thread
                await asyncio.sleep(0.001)
        else:
            assert await asyncio.to_thread(there.wait, 10)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        go_on.set()
    assert task.cancelled()
    assert await asyncio.to_thread(done.wait, 10)
    while times == 2 and not nothing_at(to):  # noqa: ASYNC110 - the other side is a thread
        await asyncio.sleep(0.001)
    assert nothing_at(to)


async def test_the_loop_goes_on_while_the_disk_is_slow(fetcher: Fetcher, disk: DiskPath, to: Path) -> None:
    """All other runs depend on it."""
    go_on = threading.Event()
    DiskPath.before = staticmethod(lambda what: go_on.wait(10))
    async with RawServer(OK) as server, asyncio.TaskGroup() as group:
        group.create_task(fetcher.fetch(server.url, disk, loopback=True))
        await server.asked.wait()
        for _ in range(100):
            await asyncio.sleep(0)
        assert not to.exists()
        go_on.set()
    assert to.read_bytes() == b"content"


# Whatever is written


HOSTS = st.text(alphabet="abzAZ-_.%:@[]\\ äß。\u0130\u2028\x00", max_size=80)


@given(scheme=st.sampled_from(["https://", "HTTPS:/", "", "//", "http://", "javascript:"]), host=HOSTS, rest=st.text())
@settings(deadline=None, max_examples=200, derandomize=True)
def test_no_text_is_more_than_refused(
    tmp_path_factory: pytest.TempPathFactory, scheme: str, host: str, rest: str
) -> None:
    """It is a model's output: whatever it says, the batch must go on."""
    folder = tmp_path_factory.getbasetemp() / "nothing"
    folder.mkdir(exist_ok=True)

    async def fetch_it() -> None:
        async with open_fetcher(clock=Hurried(), resolver=Names()) as fetcher:
            await refused(fetcher, scheme + host + rest, folder / "file", loopback=False)

    asyncio.run(fetch_it())


def test_a_fetcher_outlives_no_loop(to: Path) -> None:
    """Each batch of a notebook opens its own."""

    async def fetch_it() -> None:
        async with RawServer(OK) as server, open_fetcher() as fetcher:
            await fetcher.fetch(server.url, to, loopback=True)
        to.unlink()

    for _ in range(2):
        asyncio.run(fetch_it())


def test_the_limits_are_those_of_the_design() -> None:
    """Documented numbers."""
    assert (fetch.MAX_BYTES, fetch.REDIRECTS, fetch.RETRIES) == (268_435_456, 5, 3)
    assert Limits() == Limits(connect_s=10.0, silence_s=30.0, whole_s=900.0)
