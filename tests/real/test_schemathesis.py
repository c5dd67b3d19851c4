"""schemathesis against the real service: what `/openapi.json` says is what happens, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from app.edge.access.api_keys import digest
from tests.real.conftest import Start

pytestmark = pytest.mark.real

MODEL = "sim-gpt?tokens=3&rate=0&first=0"
KEY, TOKEN = "csk_fuzzed", "the-metrics-token-that-is-fuzzed"
EXAMPLES = 10  # for each operation, beside those that cover each keyword

CONFIG = f"""
hooks = "{Path(__file__).with_name("schemathesis_hooks.py")}"
continue-on-failure = true

[generation]
deterministic = true
max-examples = {EXAMPLES}

[checks.use_after_free]
# A stream that was stopped can be read.
enabled = false

[checks.positive_data_acceptance]
# 422 is for a key that comes again with another body. No 400 among them, and no 5xx.
expected-statuses = ["2xx", "401", "403", "404", "422"]

[[operations]]
# What a message's parts may be depends on their types, and on what comes before and after: the AI SDK says it in code.
include-operation-id = "openUIChat"
checks.positive_data_acceptance.enabled = false

[[operations]]
# So it is with the items of a response's input.
include-operation-id = "createResponse"
checks.positive_data_acceptance.enabled = false

[[operations]]
# What a message has to have depends on its role.
include-operation-id = "openRun"
checks.positive_data_acceptance.enabled = false

[[operations]]
# The query has to name a run or a thread.
include-operation-id = "findRun"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404"]

[[operations]]
# A number is that of an event only if the stream has so many, and goes with `stream` only.
include-operation-id = "retrieveResponse"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404"]

[[operations]]
# `startIndex` stands alone, and counts the chunks of a stream that has so many.
include-operation-id = "resumeUIChat"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404"]

[[operations]]
# A position that is another stream's is a 400, which no schema can say.
include-operation-id = "attachStream"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404"]
"""
AUTH = f"""
[auth.openapi.bearer]
bearer = "{KEY}"

[auth.openapi.metrics]
bearer = "{TOKEN}"
"""


@pytest.mark.parametrize("credentials", [False, True])
def test_holds_what_it_describes(start_service: Start, tmp_path: Path, credentials: bool) -> None:
    """Whatever is sent: no 5xx, only described statuses, types, headers, bodies and events; what is wrong, refused."""
    # The bodies and parameters are the same with credentials: each of their keywords is covered once.
    phases = ["examples", *["coverage"] * credentials, "fuzzing", "stateful"]
    asked = {"api_keys": f"web:{digest(KEY)}", "metrics_token": TOKEN} if credentials else {}
    # A model list alone would let the ordinary parameters pass only, which the description of all services cannot say.
    anything = {"extra_parameters": "*", "tool_types": "*", "media_types": "*", "max_media": 0, "stored_files": True}
    service = start_service(model=MODEL, models=MODEL, **anything, **asked)
    description = httpx.get(f"{service.url}/openapi.json").json()
    # Models that fail on purpose would be 5xx from the upstream.
    for body in ("ChatBody", "UIChatBody", "CompletionBody", "ResponseBody", "ForwardedProps"):
        properties = description["components"]["schemas"][body]["properties"]
        properties["model"] = {"enum": [MODEL, None]}
        # Upstream, as OpenAI, refuses most of what a schema can say of these.
        for name in ("text" if body == "ResponseBody" else "response_format", "top_logprobs"):
            del properties[name]
    (tmp_path / "openapi.json").write_text(json.dumps(description))
    (tmp_path / "schemathesis.toml").write_text(CONFIG + (AUTH if credentials else ""))

    ran = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--no-color", "run", "openapi.json"),
            *("--url", service.url, "--request-timeout", "10", "--warnings", "off", "--phases", ",".join(phases)),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    operations = sum(len({"get", "post", "delete"} & set(item)) for item in description["paths"].values())
    assert f"Tested: {operations}\n" in ran.stdout
    generated = re.search(r"(\d+) generated", ran.stdout)
    assert generated and int(generated[1]) > (50 if credentials else EXAMPLES) * operations, ran.stdout
    assert httpx.get(f"{service.url}/readyz").is_success
    assert "crashed" not in service.text()
    assert "Traceback" not in service.text()
