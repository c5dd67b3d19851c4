"""Hosts and origins: the headers that browsers send, and every way to look like an allowed one."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from app.edge.access.origins import LOOPBACK, Origins, parse_host, parse_origin
from app.errors import ForeignHost, ForeignOrigin

APP = "https://app.example.com"


def headers(*pairs: tuple[str, str]) -> Headers:
    return Headers(raw=[(name.encode(), value.encode("latin-1")) for name, value in pairs])


def check(
    host: str | None,
    origin: str | None = None,
    origins: tuple[str, ...] = (),
    hosts: tuple[str, ...] = (),
    *,
    loopback: bool = False,
) -> bool:
    pairs = (("host", host), ("origin", origin))
    given = [(name, value) for name, value in pairs if value is not None]
    return Origins(origins, hosts, loopback=loopback).check(headers(*given))


# Hosts.


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:8000", "LocalHost:8000", "localhost.", "localhost.:8000", "localhost:"),
        *("127.0.0.1", "127.0.0.1.", "127.0.0.1:1", "127.0.0.1:65535"),
        *("[::1]", "[::1]:8000", "[0:0:0:0:0:0:0:1]:8000", "[0000::0001]"),
    ],
)
def test_a_host_of_ours(host: str) -> None:
    """One of our names is taken, however it is written, and with any port: something in front may have changed that."""
    check(host, hosts=LOOPBACK)


@pytest.mark.parametrize(
    "host",
    [
        *(
            "evil.example",
            "evil.example:8000",
            "localhost.evil.example",
            "evil-localhost",
            "evil.localhost",
            "localhos",
        ),
        *("localhost@evil.example", "evil.example@localhost", "localhost:8000@evil.example", "localhost:pw@localhost"),
        *(
            "evil.example#localhost",
            "evil.example/localhost",
            "localhost/",
            "localhost?",
            "localhost\\",
            "evil.example ",
        ),
        *(
            "http://localhost",
            "//localhost",
            "localhost,evil.example",
            "evil.example, localhost",
            "localhost localhost",
        ),
        *("localhost..", ".localhost", "localhost:0", "localhost:65536", "localhost:-1", "localhost:80:80"),
        *("localhost:000080", "localhost:8o", "localhost:\u00b2", "localhost: 80", "localhost\t", "localhost\x00"),
        *("127.0.0.1.evil.example", "127.0.0.1..", "127.1", "2130706433", "0x7f.0.0.1", "0177.0.0.1", "127.0.0.2"),
        *("::1", "::1:8000", "[::1", "::1]", "[::1]8000", "[::1].", "[::2]", "[::ffff:127.0.0.1]", "[::1%25lo]", "[]"),
        *("[localhost]", "[127.0.0.1]", "[v1.x]", "[:::1]", "l\u00f6calhost", "xn--localhost", "*", "null", "", " "),
    ],
)
def test_another_host(host: str) -> None:
    """DNS rebinding: a name that is not the service's is refused, and so is one that only resembles it."""
    with pytest.raises(ForeignHost):
        check(host, hosts=LOOPBACK)


def test_no_host() -> None:
    """Where our names are given, a request has to say one; where they are not, HTTP/1.0 goes without."""
    with pytest.raises(ForeignHost):
        check(None, hosts=LOOPBACK)
    check(None)


def test_several_hosts() -> None:
    """Two hosts are refused, whatever they are and whether our names are given or not."""
    both = headers(("host", "localhost"), ("host", "localhost"))
    for origins in (Origins(), Origins(hosts=LOOPBACK), Origins(origins=("*",))):
        with pytest.raises(ForeignHost):
            origins.check(both)


def test_any_host() -> None:
    """Without a list, any one host is taken."""
    for host in ("evil.example", "10.0.0.1:8000", "", "l\u00f6calhost"):
        check(host)


def test_an_origin_is_no_host() -> None:
    """An allowed origin lets no other host in, nor a host an origin."""
    with pytest.raises(ForeignHost):
        check("evil.example", "http://evil.example", hosts=LOOPBACK, origins=("http://evil.example", "*"))
    with pytest.raises(ForeignOrigin):
        check("localhost", "http://127.0.0.1", hosts=LOOPBACK)


# Origins.


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("localhost:8000", "https://localhost:8000"),
        ("LOCALHOST:8000", "http://localhost:8000"),
        ("localhost.:8000", "http://localhost.:8000"),
        ("127.0.0.1", "http://127.0.0.1"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("[0:0::1]:8000", "http://[::1]:8000"),
        ("chat.example.com", "https://chat.example.com"),
        ("chat.example.com", "http://chat.example.com"),
        ("chat.example.com:443", "https://chat.example.com"),
        ("chat.example.com:80", "http://chat.example.com"),
        ("chat.example.com:", "https://chat.example.com"),
        ("xn--bcher-kva.example", "https://xn--bcher-kva.example"),
    ],
)
def test_our_own_origin(host: str, origin: str) -> None:
    """The service's own pages may ask, over TLS that ended in front of it too, whether or not a port is written out."""
    check(host, origin)


LOOKALIKES = [
    *("null", "", " ", "*", "localhost", "localhost:8000", "//localhost:8000", "file://", "http://", "about:blank"),
    *("http://localhost", "http://localhost:80", "http://localhost:80000", "http://localhost:08000", "http://localhost:"),
    *("http://localhost:8001", "http://localhost:800", "http://localhost:80001", "http://127.0.0.1:8000"),
    *("http://localhost:8000/", "http://localhost:8000/x", "http://localhost:8000?", "http://localhost:8000#"),
    *("http://localhost:8000.", "http://localhost.:8000", "http://localhost.evil.com:8000", "http://localhost.evil.com"),
    *("http://evil.localhost:8000", "http://evillocalhost:8000", "http://localhost:8000.evil.com"),
    *("http://localhost@evil.com", "http://localhost:8000@evil.com", "http://evil.com@localhost:8000"),
    *("http://evil.com#localhost", "http://evil.com#http://localhost:8000", "http://evil.com?http://localhost:8000"),
    *("http://evil.com/http://localhost:8000", "http://evil.com\\@localhost:8000", "http://localhost:8000\\.evil.com"),
    *("HTTP://LOCALHOST:8000", "http://LOCALHOST:8000", "ftp://localhost:8000", "ws://localhost:8000", "xhttp://localhost:8000"),
    *("http://localhost:8000 http://evil.com", "http://evil.com http://localhost:8000", "http://localhost:8000,null"),
    *(" http://localhost:8000", "http://localhost:8000 ", "http://local\thost:8000", "http://localhost:8000\x00"),
    *("http://[::1]:8000", "http://[localhost]:8000", "http:localhost:8000", "http:///localhost:8000"),
    *("http://l\u00f6calhost:8000", "http://xn--lcalhost-n4a:8000", "http://localhost:8\u00b200", "http://%6cocalhost:8000"),
]  # fmt: skip


@pytest.mark.parametrize("origin", LOOKALIKES)
def test_a_foreign_origin(origin: str) -> None:
    """An origin that is not ours to the letter is refused, whatever part of it looks like ours."""
    with pytest.raises(ForeignOrigin):
        check("localhost:8000", origin)
    with pytest.raises(ForeignOrigin):
        check("localhost:8000", origin, hosts=LOOPBACK, origins=(APP,))


@pytest.mark.parametrize(
    "origin",
    [
        *(
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://app.example.com:443",
            f"{APP}/",
            f"{APP}.",
        ),
        *("https://example.com", "https://x.app.example.com", "https://xapp.example.com", "https://app-example.com"),
        *("https://app.example.com.evil.com", "https://app.example.co", "https://app.example.com@evil.com", "null"),
        *("https://evil.com#app.example.com", "https://APP.example.com", f"{APP} {APP}", f"{APP},{APP}"),
        *("https://\u00e0pp.example.com", "https://xn--pp-hja.example.com"),
    ],
)
def test_the_list_is_kept_to_the_letter(origin: str) -> None:
    """An origin on the list may ask; its neighbours may not."""
    check("chat.example.com", APP, origins=(APP,))
    with pytest.raises(ForeignOrigin):
        check("chat.example.com", origin, origins=(APP,))


def test_no_origin() -> None:
    """A request without an Origin is allowed: browsers send one whenever a page could spend or read something."""
    check("localhost:8000")
    check(None)


def test_any_origin() -> None:
    """`*` lets any page ask, those without an origin of their own included."""
    for origin in ("https://evil.com", "null", ""):
        check("localhost", origin, origins=("*",))


@pytest.mark.parametrize(
    ("origin", "known"),
    [(None, False), ("null", False), ("https://evil.example", False), (APP, True), ("https://chat.example", True)],
)
def test_an_origin_that_is_known(origin: str | None, known: bool) -> None:
    """An origin is known if it is the service's own or listed by name, and not because any is allowed."""
    assert check("chat.example", origin, ("*", APP)) is known


def test_several_origins() -> None:
    """No browser sends two: they are refused, even if each might ask."""
    for pair in ((APP, "https://evil.com"), ("https://evil.com", APP), (APP, APP)):
        with pytest.raises(ForeignOrigin):
            Origins((APP,)).check(headers(("host", "x"), *(("origin", origin) for origin in pair)))


def test_an_origin_without_a_host() -> None:
    """A request without a Host has no origin of the service's own."""
    for host in (None, "", "a b", "[::1", "x:99999"):
        for origin in ("http://", "https://", f"http://{host}", f"https://{host}"):
            with pytest.raises(ForeignOrigin):
                check(host, origin)


@given(st.lists(st.tuples(st.sampled_from(["host", "origin"]), st.text(st.characters(max_codepoint=255)))))
def test_any_headers(pairs: list[tuple[str, str]]) -> None:
    """Whatever the two headers hold, they pass or are refused; and a stranger's pass nowhere."""
    for origins in (Origins(), Origins((APP,), LOOPBACK)):
        with suppress(ForeignHost, ForeignOrigin):
            origins.check(headers(*pairs))
    with pytest.raises((ForeignHost, ForeignOrigin)):
        Origins((APP,), LOOPBACK).check(headers(("origin", "https://evil.com"), *pairs))


@pytest.mark.parametrize(
    "origin", ["http://localhost:5173", "https://localhost", "http://127.0.0.1:3000", "http://[::1]:65535"]
)
def test_pages_of_this_machine(origin: str) -> None:
    """With *loopback*, a page that any server of this machine serves may ask; without it, none but our own may."""
    check("chat.example", origin, loopback=True)
    with pytest.raises(ForeignOrigin):
        check("chat.example", origin)


@pytest.mark.parametrize(
    "origin",
    [
        *("http://localhost.evil.example", "http://localhost:5173.evil.example", "http://localhost:5173@evil.example"),
        *("http://evil.example#http://localhost:5173", "http://127.0.0.1.evil.example", "http://127.0.0.2", "null", ""),
        *("http://localhost:5173\n", " http://localhost", "chrome-extension://localhost", "http://localhost:123456"),
        "http://localhost:\xb2",
    ],
)
def test_pages_that_look_like_this_machines(origin: str) -> None:
    """What is no origin of loopback is refused with *loopback*, too."""
    with pytest.raises(ForeignOrigin):
        check("localhost:8000", origin, loopback=True)


def test_what_a_refusal_says() -> None:
    """It names the origin, or the host, and the setting; a long one is cut, and nothing in it breaks the line."""
    with pytest.raises(ForeignOrigin, match=r"Pages of 'http://localhost:5173' .*: CHAT_SSE_ALLOWED_ORIGINS does not"):
        check("localhost:8000", "http://localhost:5173")
    with pytest.raises(ForeignHost, match=r"the host name 'evil.example': CHAT_SSE_ALLOWED_HOSTS does not list it"):
        check("evil.example", hosts=LOOPBACK)
    with pytest.raises(ForeignOrigin) as refused:
        check("localhost:8000", "\x1b[31m\n" + "a" * 5000)
    assert refused.value.text.isprintable()
    assert len(refused.value.text) < 250


# Settings.


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        (APP, APP),
        ("http://localhost:3000", "http://localhost:3000"),
        ("HTTPS://App.Example.com", APP),
        ("https://app.example.com:443", APP),
        ("http://app.example.com:443", "http://app.example.com:443"),
        ("http://[0:0::1]:80", "http://[::1]"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
        ("*", "*"),
    ],
)
def test_an_origin_is_parsed(text: str, origin: str) -> None:
    """An origin is normalised to what browsers send, and `Origins` then knows it."""
    assert parse_origin(text) == origin == parse_origin(origin)
    check("chat.example.net", origin, origins=(parse_origin(text),))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "null",
            "app.example.com",
            "app.example.com:443",
            "//app.example.com",
            "https:",
            "https://",
            "https:///x",
        ),
        *(f"{APP}/", f"{APP}/chat", f"{APP}?x", f"{APP}#x", f" {APP}", f"{APP}\n", f"{APP},{APP}", f"{APP} {APP}"),
        *("https://me@app.example.com", "https://*.example.com", "https://app.*", "**", "https://b\u00fccher.example"),
        *("https://app.example.com:0", "https://app.example.com:65536", "https://app.example.com:x", "https://[::1"),
        *("https://[::g]", "https://app..example.com", "https://.example.com", "https://" + "a" * 255, "file://"),
        *("https://\u212aelvin.example", "1http://x", "ht tp://x"),
    ],
)
def test_what_is_no_origin(text: str) -> None:
    """A text that no browser sends as an origin is refused with a sentence that does not quote it."""
    with pytest.raises(ValueError, match=r"^must be origins as browsers send them") as refused:
        parse_origin(text)
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("localhost", "localhost"),
        ("Chat.Example.com.", "chat.example.com"),
        ("chat_sse", "chat_sse"),
        ("10.0.0.1", "10.0.0.1"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    ],
)
def test_a_host_is_parsed(text: str, host: str) -> None:
    """A host is normalised to what `Origins` compares with, an IPv6 address with or without brackets."""
    assert parse_host(text) == host == parse_host(host)
    check(f"[{host}]:8000" if ":" in host else f"{host}:8000", hosts=(parse_host(text),))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "*",
            "*.example.com",
            "localhost:8000",
            "localhost:",
            "[::1]:8000",
            "[::1]:",
            "::1]",
            "[::1",
            "1:2:3",
            ":",
        ),
        *("http://localhost", "localhost/", "me@localhost", "b\u00fccher.example", "a b", "localhost\n", "\u212aelvin"),
        *("a..b", ".a", "a" * 255, "fe80::1%lo", "[localhost]"),
    ],
)
def test_what_is_no_host(text: str) -> None:
    """A text that is not just a name or an address is refused with a sentence."""
    with pytest.raises(ValueError, match=r"^must be host names or addresses"):
        parse_host(text)
