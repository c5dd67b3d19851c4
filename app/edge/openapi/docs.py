"""`GET /docs`: the description of the API as a page for people, which needs no script."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import chain
from typing import Any
from urllib.parse import quote, urlencode

from app.edge.static import Endpoint, page_headers, unchanging

Schema = Mapping[str, Any]

_METHODS = ("get", "post", "delete")
_HERE = "http://localhost:8000"
# The variables that an example's command takes credentials from, by the scheme's name.
_KEYS = {"bearer": "$CHAT_SSE_KEY", "metrics": "$METRICS_TOKEN"}
_BOUNDS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "maxProperties": "at most {} fields",
    "default": "{} if absent",
}
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>chat-sse API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs.css">
</head>
<body>
<a class="skip" href="#main">Skip to the description</a>
<header>
<h1>chat-sse <span>API {version}</span></h1>
<p>{links}</p>
</header>
<nav aria-label="Contents">
{contents}
</nav>
<main id="main" tabindex="-1">
<div class="text">{description}<p>The examples ask a service at <code>localhost:8000</code>.</p></div>
{operations}
<section aria-labelledby="schemas">
<h2 id="schemas">Schemas</h2>
{schemas}
</section>
</main>
</body>
</html>
"""


def docs(description: Schema, examples: Mapping[str, Schema]) -> Endpoint:
    """Return the endpoint of the page, whose arguments are those of `render`."""
    return unchanging(render(description, examples).encode(), "text/html; charset=utf-8", page_headers())


def render(description: Schema, examples: Mapping[str, Schema]) -> str:
    """Return the page for the *description* of the API, an OpenAPI document, with the requests of *examples*.

    Rendering takes about 20 ms: call it at the start, not for each request.
    """
    tags = [(tag["name"], tag["description"], list(_tagged(description, tag["name"]))) for tag in description["tags"]]
    links = ['<a href="openapi.json">openapi.json</a>']
    if "/" in description["paths"]:
        links.insert(0, '<a href="./">Playground</a>')
    schemas = description["components"]["schemas"]
    return _PAGE.format(
        version=_text(description["info"]["version"]),
        links=" ".join(links),
        contents=_lines(chain.from_iterable(_contents(name, listed) for name, _, listed in tags)),
        description=_prose(description["info"]["description"]),
        operations=_lines(
            f'<section aria-labelledby="{_anchor(name)}">\n<h2 id="{_anchor(name)}">{_text(name)}</h2>\n'
            f"{_prose(says)}\n" + _lines(_operation(*one, description, examples) for one in listed) + "\n</section>"
            for name, says, listed in tags
        ),
        schemas=_lines(
            f'<article aria-labelledby="schema-{name}">\n<h3 id="schema-{name}"><code>{name}</code></h3>\n'
            f"{_prose(schema.get('description', ''))}{_type_line(schema)}{_fields(schema)}\n</article>"
            for name, schema in schemas.items()
        ),
    )


def _tagged(description: Schema, tag: str) -> Iterator[tuple[str, str, Schema]]:
    """Yield the path, the method and the operation of each that has the *tag*."""
    for path, item in description["paths"].items():
        for method in _METHODS:
            if tag in item.get(method, {}).get("tags", ()):
                yield path, method, item[method]


def _contents(name: str, listed: Iterable[tuple[str, str, Schema]]) -> Iterator[str]:
    yield f'<h2><a href="#{_anchor(name)}">{_text(name)}</a></h2>\n<ul>'
    for path, method, operation in listed:
        yield f'<li><a href="#{operation["operationId"]}">{_endpoint(method, path)}</a></li>'
    yield "</ul>"


def _operation(path: str, method: str, operation: Schema, description: Schema, examples: Mapping[str, Schema]) -> str:
    name = operation["operationId"]
    shared = description["paths"][path].get("parameters", ())
    parameters = [_resolved(each, description) for each in (*shared, *operation.get("parameters", ()))]
    answers = {status: each for status, each in operation["responses"].items() if not _is_failure(status)}
    failures = {status: each for status, each in operation["responses"].items() if _is_failure(status)}
    parts = [
        f'<article aria-labelledby="{name}">',
        f'<h3 id="{name}">{_endpoint(method, path)}</h3>',
        _prose(operation["summary"]),
        _prose(operation.get("description", "")),
        f"<h4>Example</h4>\n<pre><code>{_text(command(path, method, operation, examples.get(name, {})))}</code></pre>",
        *(_example(status, kind, each) for status, answer in answers.items() for kind, each in _contents_of(answer)),
        _details("Parameters", _listed(map(_parameter, parameters))) if parameters else "",
    ]
    if "requestBody" in operation:
        parts.append(f"<p>Body: {_bodies(operation['requestBody'])}</p>")
    parts.append(_details("Answers", _listed(_answer(status, answer) for status, answer in answers.items())))
    if failures:
        parts.append(_details("Errors", _listed(_answer(status, answer) for status, answer in failures.items())))
    return _lines(part for part in (*parts, "</article>") if part)


def command(path: str, method: str, operation: Schema, example: Schema) -> str:
    """Return the command for a shell that sends an operation's *example* with curl."""
    filled = re.sub(r"\{(\w+)\}", lambda match: quote(example["path"][match[1]], safe=""), path)
    query = urlencode(
        {name: json.dumps(it) if isinstance(it, bool) else it for name, it in example.get("query", {}).items()}
    )
    url = f"{_HERE}{filled}{'?' if query else ''}{query}"
    streams = "text/event-stream" in operation["responses"].get("200", {}).get("content", ())
    words = ["curl", *(["-N"] if streams else [])]
    body = example.get("body")
    if method == "delete" or (method == "post" and body is None):
        words += ["-X", method.upper()]
    words.append(shlex.quote(url))
    scheme = next(iter(chain.from_iterable(operation["security"])), None)
    if scheme:
        words.append(f'-H "Authorization: Bearer {_KEYS[scheme]}"')
    words += [f"-H {shlex.quote(f'{name}: {value}')}" for name, value in example.get("headers", {}).items()]
    if body is not None:
        words.append(f"-d {shlex.quote(json.dumps(body, ensure_ascii=False))}")
    return " ".join(words)


def _example(status: str, kind: str, content: Schema) -> str:
    if "example" not in content:
        return ""
    shown = content["example"]
    text = shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False, indent=2)
    return f'<p class="answer">{status}, <code>{_text(kind)}</code></p>\n<pre><code>{_text(text.rstrip())}</code></pre>'


def _parameter(parameter: Schema) -> tuple[str, str]:
    required = ", required" if parameter.get("required") else ""
    name = f"<code>{_text(parameter['name'])}</code> in the {parameter['in']}{required}"
    return name, f"{_prose(parameter.get('description', ''))}{_type_line(parameter['schema'])}"


def _answer(status: str, answer: Schema) -> tuple[str, str]:
    headers = ", ".join(f"<code>{_text(name)}</code>" for name in answer.get("headers", ()))
    facts = [_prose(answer["description"])]
    if answer.get("content"):
        facts.append(f"<p>Body: {_bodies(answer)}</p>")
    if headers:
        facts.append(f"<p>Headers: {headers}</p>")
    return f"<code>{status}</code>", "".join(facts)


def _bodies(message: Schema) -> str:
    return ", or ".join(
        f"<code>{_text(kind)}</code>, {_type(each['schema'])}"
        if each["schema"] != {"type": "string"}
        else f"<code>{kind}</code>"
        for kind, each in _contents_of(message)
    )


def _contents_of(message: Schema) -> Iterable[tuple[str, Schema]]:
    found: Mapping[str, Schema] = message.get("content", {})
    return found.items()


def _is_failure(status: str) -> bool:
    return status[0] in "45"


# --- schemas


def _fields(schema: Schema) -> str:
    """Return the list of the fields of an object, or of the objects in an array, each with its own fields."""
    schema = schema.get("items", schema)
    properties = schema.get("properties")
    if not properties:
        return ""
    required = schema.get("required", ())
    return _listed(
        (
            f"<code>{_text(name)}</code>{', required' if name in required else ''}",
            f"{_prose(each.get('description', ''))}{_type_line(each)}{_fields(each)}",
        )
        for name, each in properties.items()
    )


def _type_line(schema: Schema) -> str:
    kind = _type(schema)
    return f'<p class="type">{kind}</p>' if kind else ""


def _type(schema: Schema) -> str:
    """Return what a value of the schema is, in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#schema-{name}"><code>{name}</code></a>'
    if "const" in schema:
        return f"<code>{_text(json.dumps(schema['const']))}</code>"
    if "enum" in schema:
        return " or ".join(f"<code>{_text(json.dumps(each))}</code>" for each in schema["enum"])
    for several in ("anyOf", "oneOf"):
        choices = [kind for each in schema.get(several, ()) if (kind := _type(each))]
        if choices and "type" not in schema:
            return ", or ".join(choices)
    kinds = schema.get("type", [])
    words = [_named(kind, schema) for kind in ([kinds] if isinstance(kinds, str) else kinds)]
    bounds = [pattern.format(_text(str(schema[bound]))) for bound, pattern in _BOUNDS.items() if bound in schema]
    if "pattern" in schema:
        bounds.append(f"matches <code>{_text(schema['pattern'])}</code>")
    return ", ".join([text for text in (" or ".join(words), *bounds) if text])


def _named(kind: str, schema: Schema) -> str:
    if kind == "array":
        return f"array of {_type(schema['items']) or 'anything'}"
    if kind == "string" and "contentSchema" in schema:
        return f"string with JSON: {_type(schema['contentSchema'])}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"object of {_type(schema['additionalProperties'])}"
    return _text(kind)


def _resolved(parameter: Schema, description: Schema) -> Schema:
    if "$ref" not in parameter:
        return parameter
    found: Schema = description["components"]["parameters"][parameter["$ref"].rpartition("/")[2]]
    return found


# --- HTML


def _endpoint(method: str, path: str) -> str:
    # A path may be broken after its slashes.
    return f'<code class="{method}">{method.upper()}</code> <code>{_text(path).replace("/", "/<wbr>")}</code>'


def _prose(text: str) -> str:
    """Return paragraphs, lists and code of Markdown as HTML; the description has no more of it."""
    blocks = re.split(r"\n\n+", text.strip()) if text else []
    return "".join(_block(block.split("\n")) for block in blocks)


def _block(lines: Sequence[str]) -> str:
    if all(line.startswith("- ") for line in lines):
        return f"<ul>{''.join(f'<li>{_inline(line[2:])}</li>' for line in lines)}</ul>"
    return f"<p>{_inline(' '.join(lines))}</p>"


def _inline(text: str) -> str:
    return re.sub("`([^`]+)`", r"<code>\1</code>", _text(text))


def _details(summary: str, content: str) -> str:
    return f"<details><summary>{summary}</summary>\n{content}\n</details>"


def _listed(pairs: Iterable[tuple[str, str]]) -> str:
    return f"<dl>\n{_lines(f'<dt>{term}</dt><dd>{said}</dd>' for term, said in pairs)}\n</dl>"


def _anchor(name: str) -> str:
    return re.sub(r"\W+", "-", name.lower())


def _text(text: str) -> str:
    return escape(text, quote=True)


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines)
