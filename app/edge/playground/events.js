// The list of a stream's events, and of what happened to its connection.

import { $, atEnd, make } from "./page.js";

const ROWS = 400;
const FRAME = 20_000; // characters of an event's data that its row keeps

let rows = [];
let latest = null; // when the event before came
let counting = []; // rows that count down

/** Begin the list of another stream, which was asked for at *now*, or null if it was asked for elsewhere. */
export function clear(now) {
  [rows, latest, counting] = [[], now, []];
  $("events").replaceChildren();
  $("answered").hidden = true;
}

/** Add an event's row. It shows the time since the event before, and opens to the event as it is on the wire. */
export function log(id, type, data, now) {
  const frame = `event: ${type}\ndata: ${JSON.stringify(data).slice(0, FRAME)}\nid: ${id}`;
  const cells = [
    ["number", id.slice(id.lastIndexOf("-") + 1)],
    ["type", type],
    ["data", JSON.stringify(data.content ?? data)],
    ["since", latest === null ? "" : `+${Math.round(now - latest)} ms`],
  ].map(([className, text]) => make("span", { className, textContent: text.slice(0, 200) }));
  const details = make("details", {}, make("summary", {}, ...cells));
  details.addEventListener("toggle", () => details.append(make("pre", {}, frame)), { once: true });
  const row = make("li", {}, details);
  row.dataset.type = type;
  latest = now;
  rows.push(row);
}

/** Add a row that says what happened: *kind* is `lost`, `back` or `refused`. */
export function note(kind, ...words) {
  rows.push(make("li", { className: kind }, ...words));
}

/** Add a row for a request that was refused. It counts down to when it may be sent again. */
export function refused({ status, code, message, wait, requestId }) {
  answered({ status, requestId });
  const left = make("span", { className: "left" });
  note("refused", `${status} ${code}: ${message} `, left);
  if (!wait) return;
  counting.push({ left, seconds: Math.ceil(wait / 1000), until: performance.now() + wait });
  countDown();
}

export function countDown() {
  for (const { left, seconds, until } of counting) {
    const rest = Math.ceil((until - performance.now()) / 1000);
    left.textContent = `Retry-After: ${seconds} s, ${rest > 0 ? `${rest} s left.` : "which are over."}`;
  }
}

/** Show the status, the id and the headers of the request that was answered last. */
export function answered({ status, requestId, headers }) {
  const [summary, all] = $("answered").children;
  summary.textContent = `Status ${status}, request ${requestId || "without an id"}`;
  all.textContent = headers ? [...headers].map(([name, value]) => `${name}: ${value}`).join("\n") : "";
  $("answered").hidden = false;
}

export function paint() {
  if (!rows.length) return;
  const list = $("events");
  const following = atEnd(list);
  list.append(...rows.slice(-ROWS));
  rows = [];
  while (list.children.length > ROWS) list.firstChild.remove();
  if (following) list.scrollTop = list.scrollHeight;
}
