"""What schemathesis cannot know of the service from its description; `test_schemathesis` has it loaded.

JSON Schema has no words for what holds between two values: that an event's id begins with the id of the stream in the
path, that a key has one body. And to JSON Schema 5.0 is an integer, which to the service (and to OpenAI) it is not.
"""

from __future__ import annotations

import zlib
from typing import Any

import schemathesis
from schemathesis import Case, HookContext


@schemathesis.hook
def map_body(context: HookContext, body: Any) -> Any:
    """Write whole numbers without a point."""
    return _whole(body)


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """Let ids of events be the stream's, and ask for JSON every other time where that does not change what counts."""
    headers, query = case.headers, case.query
    reading = case.method == "GET" and (query or "Last-Event-ID" in headers)
    if not reading and zlib.crc32(repr((case.body, case.path_parameters)).encode()) % 2:
        headers["Accept"] = "application/json"
    stream_id = case.path_parameters.get("stream_id")
    for place, name in ((headers, "Last-Event-ID"), (query, "last_event_id")):
        said = place.get(name)
        if stream_id and isinstance(said, str) and len(said) > 23 and said[22] == "-":
            place[name] = f"{stream_id}{said[22:]}"


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {name: _whole(item) for name, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value
