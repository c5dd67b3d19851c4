"""What a model name may ask for after its question mark, as in `stall?after=3&rate=200&first=0`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from app.simulator.errors import Refused
from app.simulator.text import ANSWERS


class Knobs(BaseModel):
    """What a model name may ask for after its question mark. Times are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: float = Field(50, ge=0, le=1e6, description="deltas a second; 0 is as fast as they are read")
    tokens: int = Field(-1, ge=0, le=10_000_000, description="deltas in all; 0 never ends, -1 is the answer as it is")
    first: float = Field(0.3, ge=0, le=3600, description="before the headers")
    head: float = Field(0, ge=0, le=3600, description="between the headers and the first delta")
    size: int = Field(0, ge=0, le=1_000_000, description="code points in a delta; 0 cuts like a tokenizer")
    after: int = Field(5, ge=0, le=10_000_000, description="deltas before the fault")
    seconds: float = Field(3, ge=0, le=3600, description="how late, or how far apart")
    retry_after: float = Field(-1, ge=0, le=1e6, description="-1 is 1 for 429 and 503, and none for other statuses")
    fail: int = Field(1, ge=0, le=1_000_000, description="how many requests fail, or connections to one response")
    resume: int = Field(0, ge=400, le=599, description="the status of resuming a background response; 0 resumes it")
    mib: int = Field(16, ge=1, le=1024, description="how giant")
    status: int = Field(401, ge=400, le=599, description="what `leak` answers with")
    key: str = Field("", max_length=200, description="what `flaky` counts by, instead of the prompt")
    answer: str = Field("", description="which text, instead of the one that the prompt chooses")

    @field_validator("answer")
    @classmethod
    def _one_of_ours(cls, name: str) -> str:
        if name not in ANSWERS:
            raise ValueError(f"must be one of {', '.join(ANSWERS)}")
        return name


def tune(defaults: Mapping[str, Any], query: str) -> Knobs:
    """Return *defaults* changed as *query* says. Raises Refused."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=20) if query else []
    except ValueError:
        raise Refused(400, "The knobs after `?` are not of the form name=value&name=value.", param="model") from None
    if len(dict(pairs)) < len(pairs):
        raise Refused(400, "A knob is given twice.", param="model")
    try:
        return Knobs(**{**defaults, **dict(pairs)})
    except ValidationError as error:
        first = error.errors()[0]
        text = f"Knob {str(first['loc'][0])[:20]!r}: {first['msg']}. Knobs: {', '.join(Knobs.model_fields)}."
        raise Refused(400, text, param="model") from None
