// The playground: shows one stream, over client.js or over the browser's own EventSource.

import { attach, chat, ChatError } from "../client.js";

const $ = (id) => document.getElementById(id);
const KINDS = ["start", "delta", "reasoning", "refusal", "tool_call", "annotation", "media", "logprobs", "extra", "done", "error"];
const CONTENT = new Set(["delta", "reasoning", "refusal", "tool_call", "media"]);
// The reasons for which an answer ends whole: the others are limits, filters, the user, and upstreams that gave none.
const WHOLE = new Set(["stop", "tool_calls"]);
const ROWS = 400;
const FRAME = 20_000; // characters of an event's data that its row keeps
const SHOWN = 200; // sources, and as many pictures; the list of events has the others
const TOOL = {
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather in a city.",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};

/** The headers that say who asks. They are kept in this page's memory only. @type {Record<string, string>} */
let credentials = {};

/** The stream on show. One transport feeds it; everything it says goes through `take`. */
let show = null;

// Text goes into the page once a frame, as text nodes with a block per line, so a long answer costs no more than a short one.

class Prose {
  constructor(element) {
    this.element = element;
    this.clear();
  }

  clear() {
    this.element.replaceChildren();
    this.waiting = [];
    this.line = null;
  }

  add(text) {
    this.waiting.push(text);
  }

  flush() {
    const text = this.waiting.join("");
    if (!text) return;
    this.waiting = [];
    for (const piece of text.match(/[^\n]*\n|[^\n]+/g)) {
      this.line ??= this.element.appendChild(document.createElement("div"));
      this.line.append(piece);
      if (piece.endsWith("\n")) this.line = null;
    }
  }
}

const prose = { delta: new Prose($("answer")), reasoning: new Prose($("reasoning")), refusal: new Prose($("refusal")) };
const calls = new Map();
const sources = new Map(); // elements, by address or by the note's text
const pieces = new Map(); // of what cannot be shown: its element and the count of its events, by kind
let rows = [];
let painting = false;

function repaint() {
  if (painting) return;
  painting = true;
  // A hidden tab paints no frames, but goes on reading.
  if (document.hidden) setTimeout(paint, 200);
  else requestAnimationFrame(paint);
}

function paint() {
  painting = false;
  const [scroller, events] = [$("scroller"), $("events")];
  const following = atEnd(events);
  for (const part of Object.values(prose)) part.flush();
  for (const { element, name, text } of calls.values()) element.textContent = `${name.join("")} ${text.join("")}`;
  if (rows.length) {
    events.append(...rows.slice(-ROWS));
    rows = [];
    while (events.children.length > ROWS) events.firstChild.remove();
    if (following) events.scrollTop = events.scrollHeight;
  }
  meter();
  if (scroller.dataset.following !== "no") toEnd();
}

const fromEnd = (element) => element.scrollHeight - element.scrollTop - element.clientHeight;
const atEnd = (element) => fromEnd(element) < 32;

function meter() {
  if (!show) return;
  const now = performance.now();
  const live = show.state === "streaming" || show.state === "lost" || show.state === "connecting";
  while (show.recent.length && now - show.recent[0] > 1000) show.recent.shift();
  const span = (show.latest - show.firstAt) / 1000;
  const rate = live ? show.recent.length : span > 0.1 ? (show.deltas - 1) / span : 0; // at the end: the mean
  $("rate").textContent = rate || (live && show.deltas) ? rate.toFixed(rate < 10 && !live ? 1 : 0) : "–";
  $("first").textContent = show.firstToken === null ? "–" : `${Math.round(show.firstToken)} ms`;
  $("count").textContent = show.deltas;
  $("characters").textContent = show.characters.toLocaleString("en");
  $("last").textContent = show.lastNumber || "–";
  $("resumed").textContent = show.resumed ? `${show.resumed}×` : "–";
}

setInterval(() => show && meter(), 250);

// The stream's events.

function take({ id, type, data }) {
  const number = Number(id.slice(id.lastIndexOf("-") + 1));
  if (number <= show.lastNumber) return; // client.js drops what it has seen already; an EventSource does not
  show.lastNumber = number;
  const now = performance.now();
  if (CONTENT.has(type)) {
    show.firstToken ??= show.asked === null ? null : now - show.asked;
    show.firstAt ??= now;
    show.latest = now;
  }
  if (type === "start") known(data.stream_id, ticketOf(data.url));
  else if (type === "delta" || type === "reasoning" || type === "refusal") {
    if (type === "reasoning") $("thinking").hidden = false;
    if (type === "refusal") {
      show.refused = true;
      $("refusal").hidden = false;
    }
    prose[type].add(data.content);
    if (type === "delta") {
      show.deltas += 1;
      show.recent.push(now);
      show.text.push(data.content);
      show.characters += [...data.content].length;
    }
  } else if (type === "tool_call") called(data);
  else if (type === "annotation") cited(data);
  else if (type === "media") pictured(data);
  log(id, type, data, now);
  if (type === "done" || type === "error") ended(type, data);
  repaint();
}

function called({ index, name, arguments: more }) {
  $("calls").hidden = false;
  if (!calls.has(index)) {
    calls.set(index, { element: $("calls").appendChild(document.createElement("div")), name: [], text: [] });
  }
  const call = calls.get(index);
  if (name) call.name.push(name);
  if (more) call.text.push(more);
}

/** Show notes on the answer as its sources. Providers give them as OpenAI's annotations or as Perplexity's lists. */
function cited({ annotations, citations = [], search_results: results = [] }) {
  for (const note of [...citations, ...results, ...annotations]) {
    const { url, title, filename } = typeof note === "string" ? { url: note } : (note?.[note.type] ?? note ?? {});
    const address = webAddress(url);
    const key = address || JSON.stringify(note);
    if (!sources.has(key)) {
      if (sources.size === SHOWN) return;
      const row = $("sources").lastElementChild.appendChild(document.createElement("li"));
      sources.set(key, address ? row.appendChild(link(address)) : row);
    }
    const words = title || (address ? "" : filename || key);
    if (words) sources.get(key).textContent = String(words).slice(0, 200);
    $("sources").hidden = false;
  }
}

/** Show an image that came with the answer, a link to what would have to be loaded, and a count of what else came. */
function pictured({ type, media_type: kind, url }) {
  const name = `${type}, ${kind}`;
  const box = $("media");
  box.hidden = false;
  if (webAddress(url) || (type === "image" && url.startsWith("data:image/"))) {
    if (box.children.length >= SHOWN) return;
    const shown = webAddress(url) ? link(url, `${name}: ${url}`) : document.createElement("img");
    box.append(shown);
    if (shown.tagName === "IMG") Object.assign(shown, { src: url, alt: "An image of the answer", onload: repaint });
    return;
  }
  const others = pieces.get(name) ?? { element: box.appendChild(document.createElement("div")), count: 0 };
  pieces.set(name, others);
  others.count += 1;
  others.element.textContent = `${name}: ${others.count} ${others.count === 1 ? "event" : "events"}`;
}

/** An address as a link may have it, or "" for what is none of the web's. */
function webAddress(text) {
  try {
    const url = new URL(text);
    return url.protocol === "https:" || url.protocol === "http:" ? url.href : "";
  } catch {
    return "";
  }
}

const link = (href, words = href) =>
  Object.assign(document.createElement("a"), { href, target: "_blank", rel: "noopener", textContent: words.slice(0, 200) });

function known(id, ticket = show.ticket) {
  if (show.id && ticket === show.ticket) return;
  Object.assign(show, { id, ticket });
  const here = new URL(location.href);
  here.search = `?stream=${id}`;
  here.hash = ticket && `ticket=${ticket}`; // the part of an address that a browser sends to no server
  history.replaceState(null, "", here); // a reload comes back to this stream
  $("second").href = here;
  $("second").hidden = false;
}

/** The ticket in a stream's URL, if reading it takes credentials. */
const ticketOf = (url) => (url && new URL(url, location.href).searchParams.get("ticket")) || undefined;

/** The address of a stream, for the requests that client.js does not make. */
function address({ id, ticket }, query = {}) {
  const url = new URL(`v1/streams/${id}`, document.baseURI);
  for (const [name, value] of Object.entries({ ticket, ...query })) if (value) url.searchParams.set(name, value);
  return url.href;
}

function ended(type, data) {
  show.end = { type, data };
  if (type === "error") {
    const { message, code } = data.error;
    finish("error", `The answer broke off: ${message}`, code);
  } else if (data.finish_reason === "cancelled") finish("stopped", "Stopped.", "cancelled");
  else {
    if (show.asked === null) show.firstToken = data.first_token_ms;
    const why = { length: ": the length limit was reached", content_filter: ": the content filter ended it" }[data.finish_reason];
    finish("done", show.refused ? "The model refused." : `Done${why ?? ""}.`, data.finish_reason);
  }
  compare(show);
}

/** Compare what the page shows with the server's own copy. */
async function compare(mine) {
  try {
    const answer = await fetch(address(mine), { headers: { ...credentials, Accept: "application/json" } });
    const { content } = await answer.json();
    if (mine !== show) return;
    prose.delta.flush();
    const same = content === mine.text.join("") && content === $("answer").textContent;
    const whole = WHOLE.has(mine.end.data.finish_reason) && !mine.refused;
    const cuts = mine.resumed ? `, after ${mine.resumed} ${mine.resumed === 1 ? "cut" : "cuts"}` : "";
    const characters = `${mine.characters.toLocaleString("en")} characters`;
    if (!same) $("whole").textContent = "✗ This is not the text that the server has.";
    else if (whole) $("whole").textContent = `✓ Whole${cuts}: all ${characters} are what the server has.`;
    else $("whole").textContent = `The ${characters} that came${cuts} are what the server has.`;
    $("whole").dataset.same = same ? "yes" : "no";
    repaint();
  } catch {
    $("whole").textContent = "The server’s copy could not be fetched, so this text was not compared with it.";
  }
}

// The stream's state, as the page shows it.

function state(name, words = name) {
  show.state = name;
  $("state").dataset.state = name;
  $("state").textContent = words;
  const busy = name === "connecting" || name === "streaming" || name === "lost";
  off("send", busy);
  off("stop", !busy);
  off("drop", name !== "streaming");
  $("answer").setAttribute("aria-busy", busy);
}

/** Whether a button does nothing now. It is never `disabled`: that would take the focus from it. */
const isOff = (id) => $(id).getAttribute("aria-disabled") === "true";
const off = (id, is) => $(id).setAttribute("aria-disabled", is);

function finish(name, words, reason) {
  state(name === "stopped" ? "idle" : name, name === "stopped" ? "stopped" : name === "error" ? `error: ${reason}` : "done");
  $("verdict").hidden = false;
  $("verdict").dataset.state = name;
  $("ending").textContent = words;
  $("copies").hidden = false;
  $("copy").hidden = !show.characters;
  $("news").textContent = words;
  clearTimeout(show.countdown);
  repaint();
}

function lost(delay, error) {
  state("lost");
  const until = performance.now() + delay;
  const mine = show;
  const tick = () => {
    if (mine !== show || show.state !== "lost") return;
    const left = Math.max(0, until - performance.now()) / 1000;
    $("state").textContent = left ? `lost, back in ${left.toFixed(1)} s` : "lost, reconnecting";
    show.countdown = setTimeout(tick, 100);
  };
  tick();
  $("news").textContent = "Connection lost. It will be resumed.";
  if (error.status) refusedWith(error);
  else note("lost", `connection lost: ${error.message}`);
}

function opened(status, requestId) {
  if (status) answered(status, requestId); // an EventSource does not say
  const back = show.state === "lost";
  state("streaming");
  if (!back) return;
  show.resumed += 1;
  $("news").textContent = "Resumed.";
  note("back", show.lastNumber ? `resumed after event ${show.lastNumber}` : "connected again");
}

/** Add an event's row. It shows the time since the event before, and opens to the event as it is on the wire. */
function log(id, type, data, now) {
  const row = document.createElement("li");
  row.dataset.type = type;
  const frame = `event: ${type}\ndata: ${JSON.stringify(data).slice(0, FRAME)}\nid: ${id}`;
  const details = row.appendChild(document.createElement("details"));
  const summary = details.appendChild(document.createElement("summary"));
  for (const [name, text] of [
    ["number", id.slice(id.lastIndexOf("-") + 1)],
    ["type", type],
    ["data", JSON.stringify(data.content ?? data)],
    ["since", show.latestRow === null ? "" : `+${Math.round(now - show.latestRow)} ms`],
  ]) {
    const cell = summary.appendChild(document.createElement("span"));
    cell.className = name;
    cell.textContent = text.slice(0, 200);
  }
  details.addEventListener("toggle", () => details.appendChild(document.createElement("pre")).append(frame), { once: true });
  show.latestRow = now;
  rows.push(row);
}

/** Show the status and the id of the request that was answered last. */
function answered(status, requestId) {
  $("answered").textContent = `Status ${status}, request ${requestId || "without an id"}`;
  $("answered").hidden = false;
}

/** Add a row for a request that was refused; it is asked again if that may help. */
function refusedWith({ status, code, message, wait, requestId }) {
  answered(status, requestId);
  note("refused", `${status} ${code}: ${message}${wait ? ` Retry-After: ${Math.ceil(wait / 1000)} s.` : ""}`);
}

function note(kind, text) {
  const row = document.createElement("li");
  row.className = kind;
  row.textContent = text;
  rows.push(row);
  repaint();
}

// Transports: each has `stop` and `drop`.

function overFetch(stream) {
  const mine = show;
  const read = async () => {
    try {
      for await (const event of stream) {
        if (mine !== show) return;
        if (stream.id) known(stream.id);
        take(event);
      }
      if (!stream.end) finish("done", "The stream has nothing after that event.", "204");
    } catch (error) {
      if (mine === show) failed(error);
    }
  };
  return { read, stop: () => stream.cancel(), drop: () => stream.reconnect(), close: () => mine.abort.abort() };
}

function failed(error) {
  if (show.body && !show.id) compose($("prompt").value || show.body.prompt); // to be sent again
  if (error.name === "AbortError") return finish("stopped", "Stopped before it began.", "cancelled");
  const gone = error instanceof ChatError && error.code === "connection_lost" && !error.status;
  const words = gone ? `The service cannot be reached: ${error.message}` : error.message;
  finish("error", error.status ? `Refused with ${error.status}: ${words}` : words, error.code ?? error.name);
  if (error.status) refusedWith(error);
  if (error.status !== 401) return;
  show.locked = true;
  access(true);
}

function overEventSource(start) {
  const mine = show;
  let source;
  let timer;
  let unwanted = false;
  const open = (url) => {
    source = new EventSource(url);
    source.onopen = () => opened();
    for (const type of KINDS) {
      source.addEventListener(type, (event) => {
        // The stream's `error` event has data; the connection's has none.
        if (event instanceof MessageEvent) {
          if (type === "done" || type === "error") source.close(); // or it would reconnect, to get a 204
          take({ id: event.lastEventId, type, data: JSON.parse(event.data) });
        } else if (source.readyState === EventSource.CLOSED) {
          finish("error", "The browser gave up: the stream is unknown, or the server refused.", "closed");
        } else lost(0, { message: "the browser reconnects by itself" });
      });
    }
  };
  const smooth = $("smooth").value;
  const read = async () => {
    try {
      const { stream_id, url } = await start();
      if (mine !== show) return;
      known(stream_id, ticketOf(url));
      open(address(mine, { smooth }));
      if (unwanted) stop().catch((error) => note("lost", `not stopped: ${error.message}`));
    } catch (error) {
      if (mine === show) failed(error);
    }
  };
  const drop = () => {
    // A page cannot break an EventSource's connection. It can close it, and open another one after the same event.
    source.close();
    lost(600, { message: "closed by the page" });
    timer = setTimeout(() => open(address(mine, { last_event_id: `${mine.id}-${mine.lastNumber}`, smooth })), 600);
  };
  const stop = async () => {
    unwanted = true;
    if (!mine.id) return; // `read` stops it once it has an id
    const answer = await fetch(address(mine), { method: "DELETE", headers: credentials });
    if (!answer.ok) throw new Error(`The server answered ${answer.status}.`);
  };
  return { read, stop, drop, close: () => (clearTimeout(timer), source?.close()) };
}

async function startOnly(body) {
  const key = Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("");
  const answer = await fetch("v1/chat", {
    method: "POST",
    headers: { ...credentials, Accept: "application/json", "Content-Type": "application/json", "Idempotency-Key": key },
    body: JSON.stringify(body),
  });
  const data = await answer.json();
  const [requestId, wait] = [answer.headers.get("X-Request-Id"), Number(answer.headers.get("Retry-After")) * 1000];
  if (!answer.ok) {
    throw new ChatError(data.error.message, { status: answer.status, code: data.error.code, wait, requestId });
  }
  answered(answer.status, requestId);
  return data;
}

// What the user does.

function begin(asked, again) {
  show?.transport?.close();
  show = {
    asked, again, body: null, latestRow: asked, locked: false, refused: false, state: "idle", id: "", ticket: "", end: null, text: [], characters: 0, deltas: 0,
    recent: [], lastNumber: 0, resumed: 0, firstToken: null, firstAt: null, latest: 0, countdown: 0, transport: null, abort: new AbortController(),
  };
  for (const part of Object.values(prose)) part.clear();
  calls.clear();
  rows = [];
  sources.clear();
  pieces.clear();
  for (const element of [$("calls"), $("media"), $("sources").lastElementChild]) element.replaceChildren();
  $("events").replaceChildren();
  $("whole").textContent = "";
  delete $("whole").dataset.same;
  for (const id of ["welcome", "asked", "thinking", "refusal", "calls", "media", "sources", "verdict", "copies", "second", "latest", "answered"]) $(id).hidden = true;
  $("scroller").dataset.following = "yes";
  state("connecting");
  $("news").textContent = "Asked.";
  repaint();
}

const asks = () => ({ url: "v1/chat", headers: credentials, signal: show.abort.signal, onConnection: news });
const news = ({ state: name, delay, error, status, requestId }) =>
  name === "open" ? opened(status, requestId) : lost(delay, error);

function ask(prompt) {
  begin(performance.now(), () => ask(prompt));
  $("asked").textContent = prompt;
  $("asked").hidden = false;
  if ($("prompt").value === prompt) compose("");
  const body = (show.body = { prompt });
  const model = $("model").value.trim();
  if (model) body.model = model;
  if (/^tools\b/.test(model)) body.tools = [TOOL];
  const native = $("transport").value === "native";
  const cut = [$("chunk").value, !native && $("smooth").value && `smooth:${$("smooth").value}`].filter(Boolean);
  if (cut.length) body.chunk = cut.join(",");
  if ($("on_disconnect").value) body.on_disconnect = $("on_disconnect").value;
  show.transport = native
    ? overEventSource(() => startOnly(body))
    : overFetch(chat(body, asks()));
  show.transport.read();
}

function watch(id, ticket) {
  begin(null, () => watch(id, ticket));
  show.ticket = ticket;
  $("asked").textContent = `Attached to stream ${id}`;
  $("asked").hidden = false;
  const smooth = Number($("smooth").value) || undefined;
  show.transport =
    $("transport").value === "native"
      ? overEventSource(async () => ({ stream_id: id }))
      : overFetch(attach(id, { ...asks(), ticket, smooth }));
  show.transport.read();
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const prompt = $("prompt").value;
  if (!prompt.trim()) return $("prompt").focus();
  if (!isOff("send")) ask(prompt);
});

$("prompt").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("composer").requestSubmit();
});

$("prompt").addEventListener("input", fit);

/** Put *text* into the prompt's field. */
function compose(text) {
  $("prompt").value = text;
  fit();
}

/** Make the prompt's field as high as its text, as far as the style allows. */
function fit() {
  const { style } = $("prompt");
  style.height = "auto";
  style.height = `${$("prompt").scrollHeight}px`;
}

async function stop() {
  if (isOff("stop")) return;
  const mine = show;
  off("stop", true);
  try {
    await mine.transport.stop();
  } catch (error) {
    if (mine !== show || mine.end) return;
    off("stop", false);
    note("lost", `not stopped: ${error.message}`);
  }
}

$("stop").addEventListener("click", stop);

document.addEventListener("keydown", (event) => {
  // Escape also ends an input method's composition, and closes a list.
  if (event.key === "Escape" && !event.isComposing && event.target.tagName !== "SELECT") stop();
});

/** Copy *text*, and say on the *button* whether that was done. */
async function copy(button, text) {
  const done = await toClipboard(text);
  const label = (button.dataset.label ??= button.textContent);
  button.textContent = done ? "Copied" : "The browser did not copy it";
  $("news").textContent = `${button.textContent}.`;
  setTimeout(() => (button.textContent = label), 2000);
}

async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Pages over plain http have no clipboard, but they may copy what is selected.
    const focused = document.activeElement;
    const field = document.body.appendChild(document.createElement("textarea"));
    field.value = text;
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    focused.focus();
    return done;
  }
}

/** The request on show as a command for a shell. It names the key's variable, and does not contain the key. */
function curl() {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const { body } = show;
  const parts = ["curl -N", quoted(body ? new URL("v1/chat", document.baseURI).href : address(show))];
  if (credentials.Authorization) parts.push('-H "Authorization: Bearer $CHAT_SSE_KEY"');
  if (body) parts.push("-H 'Content-Type: application/json'", `-d ${quoted(JSON.stringify(body))}`);
  return parts.join(" ");
}

$("copy").addEventListener("click", () => copy($("copy"), show.text.join("")));
$("curl").addEventListener("click", () => copy($("curl"), curl()));

function access(open) {
  $("access").hidden = !open;
  $("keys").setAttribute("aria-expanded", open);
  $(open ? "key" : "prompt").focus();
}

$("keys").addEventListener("click", () => access($("access").hidden));

$("access").addEventListener("submit", (event) => {
  event.preventDefault();
  const key = $("key").value.trim();
  $("key").value = "";
  credentials = key ? { Authorization: `Bearer ${key}` } : {};
  $("keys").textContent = key ? "Change the API key" : "Enter an API key";
  access(false);
  if (show?.locked) show.again();
});

$("drop").addEventListener("click", () => isOff("drop") || show.transport.drop());

$("preset").addEventListener("change", () => {
  $("model").value = $("preset").value;
});

$("samples").addEventListener("click", ({ target }) => {
  const { prompt, model } = target.dataset;
  if (!prompt) return;
  $("model").value = model;
  ask(prompt);
});

function follow(following) {
  $("scroller").dataset.following = following ? "yes" : "no";
  $("latest").hidden = following;
}

// Where the page scrolled to, or the reader, as of the last event. A slow browser sends the event of the page's own
// scrolling late, when the reader has done something else already. It is known by its position.
let scrolled = 0;

function toEnd() {
  $("scroller").scrollTop = $("scroller").scrollHeight;
  scrolled = $("scroller").scrollTop;
}

$("scroller").addEventListener("scroll", () => {
  const moved = $("scroller").scrollTop - scrolled;
  if (Math.abs(moved) < 1) return;
  scrolled += moved;
  // Up by any distance: keys and fingers move it by a few pixels a frame, which the next text would undo. A text that
  // became shorter moves it up as well, to the very end.
  if (moved < 0 && fromEnd($("scroller")) > 1) follow(false);
  else if (moved > 0 && atEnd($("scroller"))) follow(true);
});

// The wheel event comes before anything has moved, so text that comes in between does not scroll to the end again.
$("scroller").addEventListener("wheel", ({ deltaY }) => {
  if (deltaY < 0 && $("scroller").scrollTop > 0) follow(false);
}, { passive: true });

// Lines break elsewhere in another width. A reader who follows is still at the end then.
new ResizeObserver(() => $("scroller").dataset.following !== "no" && toEnd()).observe($("scroller"));

$("latest").addEventListener("click", () => {
  follow(true);
  toEnd();
  $("scroller").focus();
});

if (matchMedia("(max-width: 60rem)").matches) {
  $("options").open = false;
  $("log").open = false;
}

const given = new URL(location.href).searchParams.get("stream");
if (given && /^[\w-]+$/.test(given)) watch(given, new URLSearchParams(location.hash.slice(1)).get("ticket") ?? "");
else $("prompt").focus();
