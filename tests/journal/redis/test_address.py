"""Which addresses of a Redis are right, and that what is said of a wrong one has no word of it."""

from __future__ import annotations

import pytest

from app.journal.redis.address import check_address

SECRET = "hunter2"


@pytest.mark.parametrize(
    "url",
    [
        *(
            "redis://h:6379",
            "redis://h:6379/",
            "redis://h:6379/15",
            "rediss://h.example:6379/0",
            "redis://[::1]:6379/0",
        ),
        *(
            "redis://:p%2Fw%23@h:1",
            "redis://user:p@ss:w@127.0.0.1:65535",
            "redis+cluster://h:1",
            "redis+cluster://h:1/0",
        ),
        *("rediss+cluster://u:p@h:1/", "unix:///run/redis.sock", "unix://:p@/run/redis.sock?db=3"),
        *("rediss://h:1/0?ssl_ca_certs=/etc/ca.pem&ssl_cert_reqs=required&ssl_check_hostname=true",),
    ],
)
def test_right(url: str) -> None:
    """Hosts by name and address, a database, a password, a socket, and options for TLS."""
    check_address(url)


@pytest.mark.parametrize(
    "url",
    [
        *("redis://", "redis://h", "redis://h/0", "redis://h:", "redis://h:0", "redis://h:65536", "redis://h:x"),
        *(f"redis://:{SECRET}{mark}x@h:1/0" for mark in "/#? \n"),
        *("redis://h:1/x", "redis://h:1/0/1", "redis://h:1/0#x", "redis://h:1,i:2", "redis://a..b:1", "redis://[::1:1"),
        *(f"redis://h:1?{SECRET}={SECRET}", "redis://h:1?socket_timeout=1", "redis://h:1?ssl_cert_reqs=none"),
        *(f"rediss://h:1?ssl_cert_reqs={SECRET}", "rediss://h:1?ssl_ca_certs=", "redis+cluster://h:1/1"),
        *("unix://", "unix://h", f"unix://{SECRET}/x", "unix:///x?db=y", f"unix:///x?{SECRET}=1"),
    ],
)
def test_wrong(url: str) -> None:
    """A wrong one is refused with a clause that has nothing of it."""
    with pytest.raises(ValueError, match=r"^(it |after|a cluster|the value)") as raised:
        check_address(url)
    assert SECRET not in str(raised.value)
    assert "\n" not in str(raised.value)
