"""What there is in a response besides text, reasoning and the client's calls."""

from __future__ import annotations

from typing import Any

import pytest

from app.errors import Malformed
from app.events import Annotation, Content, Extra, Media
from app.upstream.reading.answer import Answer
from app.upstream.responses.items import ENCRYPTED, FORMAT, add_item, add_media, add_part

LINK = "https://images.example/a.png"
IMAGE = Media("image", "image/png", LINK, raw=LINK)
OUTPUTS: list[Any] = [{"type": "logs", "logs": "x"}, {"type": "image", "url": LINK}, 3]
SHOWN = {"type": "input_image", "image_url": LINK}


def taken(item: dict[str, Any]) -> list[Content]:
    answer = Answer()
    add_item(answer, item, 3)
    return answer.content


def output(item: dict[str, Any]) -> Extra:
    return Extra({}, {}, {"output": [item]})


def parts(part: dict[str, Any], index: int = 0) -> Extra:
    return Extra({}, {}, {"content_parts": [{**part, "index": index}]})


@pytest.mark.parametrize(
    ("item", "content"),
    [
        ({"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [1]}, []),
        ({"type": "message", "id": "m", "phase": "final"}, [output({"type": "message", "id": "m", "phase": "final"})]),
        ({"type": "reasoning", "id": "r", "summary": []}, []),
        (
            {"type": "reasoning", "id": "r", "encrypted_content": "x"},
            [
                Extra(
                    {},
                    {},
                    {
                        "reasoning_details": [
                            {"type": ENCRYPTED, "id": "r", "data": "x", "format": FORMAT, "index": 3},
                        ]
                    },
                )
            ],
        ),
        (
            {"type": "image_generation_call", "id": "i", "result": "AAAA", "output_format": "jpeg"},
            [
                Media("image", "image/jpeg", "data:image/jpeg;base64,AAAA"),
                output({"type": "image_generation_call", "id": "i", "output_format": "jpeg"}),
            ],
        ),
        (
            {"type": "image_generation_call", "id": "i", "status": "failed"},
            [output({"type": "image_generation_call", "id": "i", "status": "failed"})],
        ),
        (
            {"type": "code_interpreter_call", "outputs": OUTPUTS},
            [
                Media("image", "image/png", LINK, raw=OUTPUTS[1]),
                output({"type": "code_interpreter_call", "outputs": OUTPUTS}),
            ],
        ),
        ({"type": "new", "data": "\ud800"}, [output({"type": "new", "data": "\ufffd"})]),
    ],
)
def test_item(item: dict[str, Any], content: list[Content]) -> None:
    """An item is what a chat has a word for, and stays what it was where a chat has none."""
    assert taken(item) == content


@pytest.mark.parametrize(
    ("kind", "is_content"),
    [
        ("local_shell_call", True),
        ("computer_call", True),
        ("mcp_approval_request", True),
        ("web_search_call", False),
        ("mcp_call", False),
        ("image_generation_call", False),
        ("mcp_list_tools", False),
    ],
)
def test_what_the_client_acts_upon(kind: str, is_content: bool) -> None:
    """An answer may be nothing but a call that the client is to make; one that ran upstream is no answer."""
    answer = Answer()
    add_item(answer, {"type": kind, "id": "a"}, 0)
    answer.take()
    assert answer.has_content is is_content


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ({"type": "output_text", "text": "a", "annotations": [], "logprobs": []}, []),
        ({"type": "output_text", "text": "a", "annotations": [{"url": "u"}]}, [Annotation([{"url": "u"}])]),
        ({"type": "output_text", "text": "a", "sig": "s"}, [parts({"type": "output_text", "sig": "s"})]),
        ({"type": "refusal", "refusal": "no"}, []),
        ({"type": "refusal", "refusal": "no", "sig": "s"}, [parts({"type": "refusal", "sig": "s"})]),
        (SHOWN, [Media("image", "image/png", LINK, raw=SHOWN)]),
        ({"type": "new", "data": 1}, [parts({"type": "new", "data": 1})]),
        ({"type": "new", "data": ""}, []),
    ],
)
def test_part(part: dict[str, Any], content: list[Content]) -> None:
    """Of a part, everything but its text is taken here, and once."""
    answer = Answer()
    add_part(answer, part, 0)
    add_part(answer, part, 0)  # with the whole item
    assert answer.content == content


def test_two_parts() -> None:
    """Each part has an index of its own, or openai-python could not join the chunks of a stream."""
    answer = Answer()
    for data in (1, 2):
        add_part(answer, {"type": "new", "data": data}, 0)
    assert answer.content == [parts({"type": "new", "data": 1}), parts({"type": "new", "data": 2}, 1)]


@pytest.mark.parametrize(("value", "fails"), [({"id": 3}, True), ({"url": ""}, False), (None, False), (LINK, False)])
def test_media(value: object, fails: bool) -> None:
    """An image that is not empty and cannot be understood makes the answer malformed."""
    answer = Answer()
    add_media(answer, value, "image")
    assert isinstance(answer.error, Malformed) is fails
    assert answer.content == ([IMAGE] if value == LINK else [])
