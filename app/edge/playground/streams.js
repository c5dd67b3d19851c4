// The caller's streams, from every device: a list from which one opens.

import { $, make } from "./page.js";

const EVERY = 10_000; // milliseconds between two looks, while the list is in view
const MOST = 30;

/** Keep the list fresh while it is open. *headers* returns who asks; *open* gets the id and the URL of what is chosen. */
export function listStreams(headers, shown, open) {
  let timer;

  const look = async () => {
    clearTimeout(timer);
    if ($("streams").offsetParent === null || !$("streams").open || document.hidden) return;
    try {
      const { streams, spare } = await ask(headers());
      show(streams);
      if (spare) timer = setTimeout(look, EVERY);
    } catch (error) {
      say(error.message);
    }
  };

  const show = (streams) => {
    const focused = document.activeElement?.dataset.stream;
    $("mine").replaceChildren(...streams.map((stream) => item(stream, stream.stream_id === shown(), open)));
    if (focused) $("mine").querySelector(`[data-stream="${focused}"]`)?.focus();
    say(streams.length ? "" : "There are none yet.");
  };

  document.addEventListener("visibilitychange", look); // a page that is not shown does not look
  $("streams").addEventListener("toggle", look);
  return look;
}

const say = (words) => {
  $("none").textContent = words;
  $("none").hidden = !words;
};

async function ask(headers) {
  // A caller without credentials has no streams of their own.
  if (!headers.Authorization) throw new Error("They are listed for callers with an API key.");
  const answer = await fetch(`v1/streams?limit=${MOST}`, { headers });
  if (!answer.ok) throw new Error(`The list was refused with ${answer.status}.`);
  // Looking counts as a request, of which the caller may have few: the other half of them is for asking.
  const [most, left] = ["Limit", "Remaining"].map((name) => Number(answer.headers.get(`RateLimit-${name}`)));
  return { ...(await answer.json()), spare: left >= most / 2 };
}

function item({ stream_id: id, url, state, model, created, metadata }, here, open) {
  const title = metadata.title || metadata.chat_id || metadata.thread_id || id;
  const where = state !== "live" ? state : here ? "running here" : "running elsewhere";
  const details = `${where} · ${model} · ${new Date(created * 1000).toLocaleTimeString()}`;
  const button = make("button", { type: "button" }, make("span", { className: "title" }, title), make("small", {}, details));
  button.dataset.stream = id;
  button.addEventListener("click", () => open(id, url));
  const row = make("li", {}, button);
  row.dataset.state = state;
  if (here) button.setAttribute("aria-current", "true");
  return row;
}
