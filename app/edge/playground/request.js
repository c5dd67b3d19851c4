// What is asked: the options as a request's body, as code that sends the same, and as a link that opens them.

import { $ } from "./page.js";

// Their ids are the names of the API. A link has them and the prompt.
const FIELDS = ["system", "model", "temperature", "tools", "chunk", "smooth", "on_disconnect", "transport"];
const TITLE = 80; // characters of a prompt by which the list of streams names it

export const TOOL = {
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather in a city.",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};

const value = (id) => $(id).value.trim();

/** Whether the browser's own EventSource reads the stream, which can send no body and no headers. */
export const isNative = () => value("transport") === "native";

/** Say beside the field what is wrong with `tools`. Returns whether the options can be sent. */
export function check() {
  let wrong = "";
  try {
    if (value("tools") && !Array.isArray(JSON.parse(value("tools")))) wrong = "This is not a list: […]";
  } catch (error) {
    wrong = `This is not JSON: ${error.message}`;
  }
  $("tools").setCustomValidity(wrong);
  $("tools").setAttribute("aria-invalid", wrong !== "");
  $("wrong").textContent = wrong;
  return !wrong && $("temperature").checkValidity();
}

$("tools").addEventListener("input", check);

/** Return the body that asks *messages* with the options. *listed* streams have a title in the caller's list. */
export function body(messages, listed) {
  const all = value("system") ? [{ role: "system", content: $("system").value }, ...messages] : messages;
  const asked = all.length === 1 ? { prompt: all[0].content } : { messages: all };
  if (value("model")) asked.model = value("model");
  if (value("temperature")) asked.temperature = Number(value("temperature"));
  if (value("tools")) asked.tools = JSON.parse(value("tools"));
  const cut = [value("chunk"), !isNative() && value("smooth") && `smooth:${value("smooth")}`].filter(Boolean);
  if (cut.length) asked.chunk = cut.join(",");
  if (value("on_disconnect")) asked.on_disconnect = value("on_disconnect");
  const title = messages.findLast(({ role }) => role === "user")?.content;
  if (listed && title) asked.metadata = { title: [...title].slice(0, TITLE).join("") };
  return asked;
}

/** A link that fills in *prompt* and the options. They are in the part that a browser sends to no server. */
export function linkTo(prompt) {
  const filled = FIELDS.filter((id) => $(id).value !== "" && $(id).value !== $(id).dataset.usual);
  const here = new URL(document.baseURI);
  here.search = "";
  here.hash = new URLSearchParams([["prompt", prompt], ...filled.map((id) => [id, $(id).value])]);
  return here.href;
}

/** Fill in what a link has. Returns its prompt, or null if this is none. It is not sent: that costs money. */
export function fill(hash) {
  const given = new URLSearchParams(hash.slice(1));
  if (!given.has("prompt")) return null;
  for (const id of FIELDS) $(id).value = given.get(id) ?? $(id).dataset.usual ?? "";
  check();
  return given.get("prompt");
}

// The code names the key's variable, and does not contain the key.

/** A *request* (`method`, `url`, `body`, `secret`) as a command for a shell. */
export function curl({ url, body: json, secret }) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const parts = ["curl -N", quoted(url)];
  if (secret) parts.push('-H "Authorization: Bearer $CHAT_SSE_KEY"');
  if (json) parts.push("-H 'Content-Type: application/json'", `-d ${quoted(JSON.stringify(json))}`);
  return parts.join(" ");
}

/** A *request* as a module for a browser, Node, Deno or Bun. */
export function script({ method, url, body: json, secret }) {
  const headers = [json && `"Content-Type": "application/json"`, secret && "Authorization: `Bearer ${key}`"];
  const options = [`method: ${JSON.stringify(method)}`, `headers: { ${headers.filter(Boolean).join(", ")} }`];
  if (json) options.push(`body: JSON.stringify(${JSON.stringify(json)})`);
  return `${secret ? 'const key = ""; // the API key\n' : ""}const response = await fetch(${JSON.stringify(url)}, {
  ${options.join(",\n  ")},
});
if (!response.ok) throw new Error(await response.text());
const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
let text = "";
for (let read; !(read = await reader.read()).done; ) {
  const lines = (text + read.value).split("\\n");
  text = lines.pop();
  for (const line of lines) if (line.startsWith("data: ")) console.log(line.slice(6));
}
`;
}

/** A *request* for Python, with httpx and httpx-sse. */
export function python({ method, url, body: json, secret }) {
  const options = [];
  if (secret) options.push(`headers={"Authorization": f"Bearer {os.environ['CHAT_SSE_KEY']}"}`);
  if (json) options.push(`json=${literal(json)}`);
  const request = [`"${method}"`, JSON.stringify(url), ...options].join(", ");
  return `${secret ? "import os\n\n" : ""}import httpx
from httpx_sse import connect_sse

with httpx.Client(timeout=60) as client, connect_sse(client, ${request}) as source:
    source.response.raise_for_status()
    for event in source.iter_sse():
        print(event.data)
`;
}

/** A value of JSON as Python writes it. JSON's texts and numbers are Python's as well. */
function literal(json) {
  if (Array.isArray(json)) return `[${json.map(literal).join(", ")}]`;
  if (json === null) return "None";
  if (typeof json === "boolean") return json ? "True" : "False";
  if (typeof json !== "object") return JSON.stringify(json);
  return `{${Object.entries(json).map(([name, one]) => `${JSON.stringify(name)}: ${literal(one)}`).join(", ")}}`;
}
