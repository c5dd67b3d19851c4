"""API keys: known by their hash, compared one and all, and never quoted."""

from __future__ import annotations

import hmac
import re
from types import SimpleNamespace

import pytest

from app.edge.access.api_keys import ApiKey, ApiKeys, digest, new_key, parse
from app.request import UNLIMITED, Allowance, Principal

pytestmark = pytest.mark.anyio

LITTLE = Allowance(requests=1)


async def test_known_and_unknown() -> None:
    """A key has its owner as principal, with the owner's allowance; any other text has none."""
    ada, bob = new_key(), new_key()
    keys = ApiKeys([parse(f"ada:{digest(ada)}", LITTLE), parse(f"bob:{digest(bob)}", UNLIMITED)])
    assert await keys.principal(ada) == Principal("key:ada", LITTLE)
    assert await keys.principal(bob) == Principal("key:bob")
    for other in (new_key(), "", ada[:-1], f"{ada}A", ada.swapcase(), digest(ada), "ada"):
        assert await keys.principal(other) is None


async def test_new_keys() -> None:
    """A new key has 256 bits behind its prefix, in characters that a header and a shell take, and is never the same."""
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(re.fullmatch(r"csk_[A-Za-z0-9_-]{43}", key) for key in keys)


@pytest.mark.parametrize("place", [0, 1, 2, None])
async def test_every_key_is_compared(place: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token is compared with all keys, in constant time, wherever the one that fits stands, or whether one does."""
    tokens = [new_key() for _ in range(3)]
    keys = ApiKeys([parse(f"k{n}:{digest(token)}", UNLIMITED) for n, token in enumerate(tokens)])
    compared: list[bytes] = []

    def compare_digest(known: bytes, given: bytes) -> bool:
        compared.append(known)
        return hmac.compare_digest(known, given)

    monkeypatch.setattr("app.edge.access.api_keys.hmac", SimpleNamespace(compare_digest=compare_digest))
    principal = await keys.principal(new_key() if place is None else tokens[place])
    assert principal == (None if place is None else Principal(f"key:k{place}"))
    assert [known.hex() for known in compared] == [digest(token) for token in tokens]


@pytest.mark.parametrize("name", ["a", "Ada.Lovelace_1-2", "x" * 64])
async def test_parse(name: str) -> None:
    """A name and a hash in hex of either case are a key; space around them is nothing."""
    hashed = digest("k")
    assert parse(f"{name}:{hashed}", LITTLE) == ApiKey(name, bytes.fromhex(hashed), LITTLE)
    assert parse(f" {name}:{hashed.upper()}\n", LITTLE).sha256 == bytes.fromhex(hashed)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "ada",
        digest("k"),
        f":{digest('k')}",
        f"ada:{digest('k')[1:]}",
        f"ada:{digest('k')}0",
        f"ada:{digest('k')[1:]}g",
        f"ada :{digest('k')}",
        f"a:b:{digest('k')}",
        f"ä:{digest('k')}",
        f"a\n:{digest('k')}",
        f"{'x' * 65}:{digest('k')}",
        f"ada:{'٣' * 64}",
        "ada:csk_a-key-that-was-not-hashed",
    ],
)
async def test_parse_refuses(text: str) -> None:
    """Anything else is refused with one sentence that says the form, and so quotes nothing of it."""
    with pytest.raises(ValueError, match="NAME:SHA256") as raised:
        parse(text, UNLIMITED)
    with pytest.raises(ValueError, match="NAME:SHA256") as another:
        parse("?", UNLIMITED)
    assert str(raised.value) == str(another.value)


async def test_distinct() -> None:
    """Two keys of one name, or one key under two names, are a mistake that says which."""
    one, two = parse(f"one:{digest('1')}", LITTLE), parse(f"two:{digest('2')}", LITTLE)
    with pytest.raises(ValueError, match="two API keys are named 'one'"):
        ApiKeys([one, two, two._replace(name="one")])
    with pytest.raises(ValueError, match="'one' and 'three' are the same key"):
        ApiKeys([one, two, one._replace(name="three")])
    with pytest.raises(ValueError, match="'two' is not a SHA-256"):
        ApiKeys([one, two._replace(sha256=b"short")])
