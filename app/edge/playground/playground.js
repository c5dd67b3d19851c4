// The playground: a conversation, of which the newest answer's stream is on show.

import { ChatError } from "../client.js";
import { Chart } from "./chart.js";
import * as events from "./events.js";
import { $, announce, copy, isOff, off, time } from "./page.js";
import * as request from "./request.js";
import { follow, keepUp } from "./scrolling.js";
import { listStreams } from "./streams.js";
import { address, overEventSource, overFetch, ticketOf } from "./transports.js";
import { Turn } from "./turn.js";

const CONTENT = new Set(["delta", "reasoning", "refusal", "tool_call", "media"]);
// The reasons for which an answer ends whole: the others are limits, filters, the user, and upstreams that gave none.
const WHOLE = new Set(["stop", "tool_calls"]);

const KEPT = 500_000; // characters of a conversation that a reload brings back

/** The headers that say who asks. They are kept in this page's memory only. @type {Record<string, string>} */
let credentials = {};

/** The conversation. The last turn is that of `show`. @type {Turn[]} */
let turns = [];

/** The stream on show. One transport feeds it; everything it says goes through `take`. */
let show = null;

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
  // Each turn, because the switch to Markdown has all of them rendered.
  if (turns.filter((turn) => turn.paint()).length) repaint();
  events.paint();
  meter();
  keepUp();
}

function meter() {
  if (!show) return;
  const now = performance.now();
  while (show.recent.length && now - show.recent[0] > 1000) show.recent.shift();
  const span = (show.latest - show.firstAt) / 1000;
  const rate = show.busy ? show.recent.length : span > 0.1 && show.deltas ? (show.deltas - 1) / span : 0; // at the end: the mean
  const { usage } = show.end?.data ?? {};
  const tokens = (count) => (count === undefined ? "–" : `${usage.estimated ? "≈" : ""}${count.toLocaleString("en")}`);
  for (const [id, text] of Object.entries({
    first: show.firstToken === null ? "–" : time(show.firstToken),
    rate: rate || (show.busy && show.deltas) ? rate.toFixed(rate < 10 && !show.busy ? 1 : 0) : "–",
    count: show.deltas,
    characters: show.turn.characters.toLocaleString("en"),
    last: show.lastNumber || "–",
    resumed: show.resumed ? `${show.resumed}×` : "–",
    input: tokens(usage?.prompt_tokens),
    output: tokens(usage?.completion_tokens),
  })) $(id).textContent = text;
  show.chart.draw(now);
}

setInterval(() => {
  if (show?.busy) meter();
  events.countDown();
}, 250);

// The stream's events.

function take({ id, type, data }) {
  const number = Number(id.slice(id.lastIndexOf("-") + 1));
  if (number <= show.lastNumber) return; // client.js drops what it has seen already; an EventSource does not
  show.lastNumber = number;
  const now = performance.now();
  show.chart.mark("event", now);
  if (CONTENT.has(type)) {
    show.chart.mark("token", now);
    show.chart.add(data.content?.length ?? 1, now);
    show.firstToken ??= show.asked === null ? null : now - show.asked;
    show.firstAt ??= now;
    show.latest = now;
  }
  if (type === "start") known(data.stream_id, ticketOf(data.url));
  if (type === "delta") {
    show.deltas += 1;
    show.recent.push(now);
  }
  show.turn.take(type, data);
  events.log(id, type, data, now);
  if (type === "done" || type === "error") ended(type, data);
  repaint();
}

function known(id, ticket = show.ticket) {
  if (show.id && ticket === show.ticket) return;
  Object.assign(show, { id, ticket });
  const here = new URL(location.href);
  here.search = `?stream=${id}`;
  here.hash = ticket ? `ticket=${ticket}` : ""; // the part of an address that a browser sends to no server
  history.replaceState(kept(), "", here); // a reload comes back to this stream, and to the conversation
  $("second").href = here;
  $("second").hidden = false;
}

/** The conversation as the browser keeps it for a reload of this page, or null if that is very long. */
function kept() {
  const { asked, messages } = show.turn;
  const earlier = turns.slice(0, -1).map(({ asked, messages, said }) => ({ asked, messages, said }));
  const all = { asked, messages, earlier: earlier.filter(({ said }) => said.length) };
  return JSON.stringify(all).length < KEPT ? all : null;
}

function ended(type, data) {
  show.end = { type, data };
  if (type === "error") {
    const { message, code } = data.error;
    if (!show.turn.came) giveBack();
    finish("error", `The answer broke off: ${message}`, code);
  } else if (data.finish_reason === "cancelled") finish("stopped", "Stopped.", "cancelled");
  else {
    if (show.asked === null) show.firstToken = data.first_token_ms;
    const why = { length: ": the length limit was reached", content_filter: ": the content filter ended it" }[data.finish_reason];
    finish("done", show.turn.refused ? "The model refused." : `Done${why ?? ""}.`, data.finish_reason);
  }
  compare(show);
}

/** Compare what the page shows with the server's own copy. */
async function compare({ turn, end, resumed, ...mine }) {
  try {
    const answer = await fetch(address(mine), { headers: { ...credentials, Accept: "application/json" } });
    const { content } = await answer.json();
    turn.compare(content, WHOLE.has(end.data.finish_reason), resumed);
  } catch {
    turn.say("The server’s copy could not be fetched, so this text was not compared with it.");
  }
  repaint();
}

// The stream's state, as the page shows it.

function state(name, words = name) {
  show.state = name;
  $("state").dataset.state = name;
  $("state").textContent = words;
  show.busy = name === "connecting" || name === "streaming" || name === "lost";
  off("send", show.busy);
  off("stop", !show.busy);
  off("drop", name !== "streaming");
  show.turn.busy = show.busy;
}

function finish(name, words, reason) {
  show.chart.mark("end", performance.now());
  state(name === "stopped" ? "idle" : name, name === "stopped" ? "stopped" : name === "error" ? `error: ${reason}` : "done");
  show.turn.end(name, words);
  announce(words);
  clearTimeout(show.countdown);
  look();
  repaint();
}

function lost(delay, error) {
  state("lost");
  show.chart.cut(performance.now());
  const until = performance.now() + delay;
  const mine = show;
  const tick = () => {
    if (mine !== show || show.state !== "lost") return;
    const left = Math.max(0, until - performance.now()) / 1000;
    $("state").textContent = left ? `lost, back in ${left.toFixed(1)} s` : "lost, reconnecting";
    show.countdown = setTimeout(tick, 100);
  };
  tick();
  announce("Connection lost. It will be resumed.");
  if (error.status) events.refused(error);
  else events.note("lost", `connection lost: ${error.message}`);
  repaint();
}

function opened(answer) {
  if (answer.status) events.answered(answer); // an EventSource does not say
  const back = show.state === "lost";
  const now = performance.now();
  show.chart.mark("open", now);
  state("streaming");
  if (!back) return;
  show.resumed += 1;
  show.chart.resume(now);
  announce("Resumed.");
  events.note("back", show.lastNumber ? `resumed after event ${show.lastNumber}` : "connected again");
  repaint();
}

function failed(error) {
  if (!show.id) giveBack();
  if (error.name === "AbortError") return finish("stopped", "Stopped before it began.", "cancelled");
  const gone = error instanceof ChatError && error.code === "connection_lost" && !error.status;
  const words = gone ? `The service cannot be reached: ${error.message}` : error.message;
  if (error.status) events.refused(error);
  finish("error", error.status ? `Refused with ${error.status}: ${words}` : words, error.code ?? error.name);
  if (error.status !== 401) return;
  show.again = true;
  access(true);
}

/** Put a prompt that got no answer back into its field, to be sent again. */
function giveBack() {
  if (!$("prompt").value) compose(show.prompt);
}

// What the user does.

/** Show another stream: *turn* is the conversation's next, of *more*, which says what is asked, or which stream it is. */
async function begin(turn, more) {
  show?.transport.close();
  turns.push(turn);
  $("turns").append(turn.element);
  const now = performance.now();
  const mine = (show = {
    turn, asked: now, body: null, prompt: "", link: "", id: "", ticket: "", state: "idle", busy: true, again: false, end: null, deltas: 0,
    recent: [], lastNumber: 0, resumed: 0, firstToken: null, firstAt: null, latest: 0, countdown: 0, chart: new Chart(now), ...more,
  });
  events.clear(show.asked);
  for (const id of ["welcome", "second"]) $(id).hidden = true;
  $("fresh").hidden = false;
  follow(true);
  view("answer");
  state("connecting");
  announce("Asked.");
  repaint();
  const only = (tell) => (...news) => mine === show && tell(...news);
  const heard = {
    known: only(known),
    open: only(opened),
    lost: only(lost),
    event: only(take),
    answered: only(events.answered),
    unstopped: only((error) => events.note("lost", `not stopped: ${error.message}`)),
  };
  const over = request.isNative() ? overEventSource : overFetch;
  mine.transport = over(mine, { headers: credentials, smooth: Number($("smooth").value) || undefined, heard });
  try {
    await mine.transport.read();
    if (mine === show && !mine.end) finish("done", "The stream has nothing after that event.", "204");
  } catch (error) {
    if (mine === show) failed(error);
  }
}

const newTurn = (asked, messages = []) => new Turn(asked, messages, repaint, $("markdown").checked);

function ask(prompt) {
  if (!request.check()) {
    view("options");
    $("options").open = true;
    return $("options").querySelector(":invalid").focus();
  }
  const messages = prompt ? [{ role: "user", content: prompt }] : [];
  const body = request.body([...turns.flatMap(({ said }) => said), ...messages], "Authorization" in credentials);
  if ($("prompt").value === prompt) compose("");
  begin(newTurn(prompt, messages), { body, prompt, link: request.linkTo(prompt) });
}

/** Attach to a stream that was started elsewhere, or before this page was loaded: *before* is what was `kept` then. */
function watch(id, ticket = "", before = null) {
  startOver();
  const { asked = `Attached to stream ${id}`, messages = [], earlier = [] } = before ?? {};
  for (const turn of earlier) {
    const shown = newTurn(turn.asked, turn.messages);
    shown.restore(turn.said);
    turns.push(shown);
    $("turns").append(shown.element);
  }
  begin(newTurn(asked, messages), { id, ticket, asked: null });
}

/** Ask for the stream on show once more, with other credentials. */
function again() {
  const { turn, body, prompt, id, ticket } = show;
  turns.pop().element.remove();
  if (body) ask(prompt);
  else begin(newTurn(turn.asked, turn.messages), { id, ticket, asked: null });
}

function startOver() {
  show?.transport.close();
  show = null;
  turns = [];
  $("turns").replaceChildren();
}

$("fresh").addEventListener("click", () => {
  startOver();
  history.replaceState(null, "", new URL(".", location.href));
  events.clear(null);
  for (const value of $("meters").querySelectorAll("dd")) value.textContent = "–";
  Object.assign($("state"), { textContent: "idle" }).dataset.state = "idle";
  for (const id of ["fresh", "second", "latest", "timing"]) $(id).hidden = true;
  $("welcome").hidden = false;
  off("send", false);
  for (const id of ["stop", "drop"]) off(id, true);
  announce("A new conversation.");
  $("prompt").focus();
});

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const prompt = $("prompt").value;
  // What the tools returned may be all that there is to send.
  if (!prompt.trim() && !turns.at(-1)?.calling) return $("prompt").focus();
  if (!isOff("send")) ask(prompt.trim() && prompt);
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
    events.note("lost", `not stopped: ${error.message}`);
    repaint();
  }
}

$("stop").addEventListener("click", stop);

document.addEventListener("keydown", (event) => {
  // Escape also ends an input method's composition, and closes a list.
  if (event.key !== "Escape" || event.isComposing || event.target.tagName === "SELECT") return;
  if (isOff("stop")) view("answer");
  else stop();
});

$("turns").addEventListener("click", ({ target }) => {
  const { copy: what } = target.dataset;
  if (what) copy(target, copied(what, turns.find(({ element }) => element.contains(target))));
});

/** What a button of a *turn* copies. */
function copied(what, turn) {
  if (what === "answer") return turn.text.join("");
  const { body, link } = show;
  if (what === "link") return link || new URL(`?stream=${show.id}`, location.href).href;
  const url = body ? new URL("v1/chat", document.baseURI).href : address(show);
  return request[what]({ method: body ? "POST" : "GET", url, body, secret: "Authorization" in credentials });
}

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
  look();
  if (show?.again) again();
});

$("drop").addEventListener("click", () => isOff("drop") || show.transport.drop());

$("preset").addEventListener("change", () => {
  $("model").value = $("preset").value;
  if ($("preset").value === "tools") example();
});

$("example").addEventListener("click", example);

/** Fill in a tool, unless there are some. */
function example() {
  $("tools").value ||= JSON.stringify([request.TOOL], null, 1);
  request.check();
}

$("samples").addEventListener("click", ({ target }) => {
  const { prompt, model } = target.dataset;
  if (!prompt) return;
  $("model").value = model;
  ask(prompt);
});

// The list of models that the field offers is a help only: without it, any name can be typed.
$("model").addEventListener("focus", async () => {
  const answer = await fetch("v1/models", { headers: credentials }).catch(() => null);
  if (!answer?.ok) return;
  const { data } = await answer.json();
  $("models").replaceChildren(...data.map(({ id, description = "" }) => new Option(description, id)));
});

$("markdown").addEventListener("change", () => {
  for (const turn of turns) turn.render($("markdown").checked);
});

const look = listStreams(() => credentials, () => show?.id, (id, url) => watch(id, ticketOf(url)));

// Where there is little room, one of the parts is in view at a time: `answer`, or one of the three beside it.

const wide = matchMedia("(min-width: 60rem)");

function view(name) {
  document.body.dataset.view = name;
  for (const button of $("views").children) button.setAttribute("aria-pressed", button.value === name);
  look();
}

$("views").addEventListener("click", ({ target }) => {
  if (target.value) view(document.body.dataset.view === target.value ? "answer" : target.value);
});

function arrange() {
  for (const id of ["options", "log"]) $(id).open = true;
  $("streams").open = !wide.matches;
  view("answer");
}

wide.addEventListener("change", arrange);
arrange();

const given = new URL(location.href).searchParams.get("stream");
if (given && /^[\w-]+$/.test(given)) watch(given, new URLSearchParams(location.hash.slice(1)).get("ticket") ?? "", history.state);
else $("prompt").focus();

function fillIn() {
  const prompt = request.fill(location.hash);
  if (prompt !== null) compose(prompt);
}

window.addEventListener("hashchange", fillIn);
fillIn();
