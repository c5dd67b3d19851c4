// How a stream is read: with client.js over fetch, or with the browser's own EventSource. Each transport has `read`,
// which ends with the stream or throws, `stop`, `drop` and `close`.

import { attach, chat, ChatError } from "../client.js";

const KINDS = ["start", "delta", "reasoning", "refusal", "tool_call", "annotation", "media", "logprobs", "extra", "done", "error"];
const PAUSE = 600; // milliseconds before a connection that the page closed is opened again

/** The ticket in a stream's URL, if reading it takes credentials. */
export const ticketOf = (url) => (url && new URL(url, location.href).searchParams.get("ticket")) || undefined;

/** The address of a stream, for the requests that client.js does not make. */
export function address({ id, ticket }, query = {}) {
  const url = new URL(`v1/streams/${id}`, document.baseURI);
  for (const [name, value] of Object.entries({ ticket, ...query })) if (value) url.searchParams.set(name, value);
  return url.href;
}

/**
 * Read *show*, a stream that has an `id` or a `body` to start it with. `heard` tells of it: `known(id, ticket)`,
 * `open(answer)`, `lost(delay, error)`, `event(event)`, `answered(answer)` and `unstopped(error)`. `headers` say who asks.
 */
export function overFetch(show, { headers, smooth, heard }) {
  const leaving = new AbortController();
  const onConnection = (news) => (news.state === "open" ? heard.open(news) : heard.lost(news.delay, news.error));
  const asks = { url: "v1/chat", headers, signal: leaving.signal, onConnection };
  const stream = show.body ? chat(show.body, asks) : attach(show.id, { ...asks, ticket: show.ticket, smooth });
  const read = async () => {
    for await (const event of stream) {
      heard.known(stream.id);
      heard.event(event);
    }
  };
  return { read, stop: () => stream.cancel(), drop: () => stream.reconnect(), close: () => leaving.abort() };
}

export function overEventSource(show, { headers, smooth, heard }) {
  let source;
  let timer;
  let unwanted = false;
  let closed = false;

  const open = (url, resolve, reject) => {
    source = new EventSource(url);
    source.onopen = () => heard.open({}); // an EventSource does not say what was answered
    for (const type of KINDS) {
      source.addEventListener(type, (event) => {
        // The stream's `error` event has data; the connection's has none.
        if (event instanceof MessageEvent) {
          const isEnd = type === "done" || type === "error";
          if (isEnd) source.close(); // or it would reconnect, to get a 204
          heard.event({ id: event.lastEventId, type, data: JSON.parse(event.data) });
          if (isEnd) resolve();
        } else if (source.readyState === EventSource.CLOSED) {
          reject(new ChatError("The browser gave up: the stream is unknown, or the server refused.", { code: "closed" }));
        } else heard.lost(0, { message: "the browser reconnects by itself" });
      });
    }
    drop = () => {
      // A page cannot break an EventSource's connection. It can close it, and open another one after the same event.
      source.close();
      heard.lost(PAUSE, { message: "closed by the page" });
      const after = `${show.id}-${show.lastNumber}`;
      timer = setTimeout(() => open(address(show, { last_event_id: after, smooth }), resolve, reject), PAUSE);
    };
  };
  let drop = () => {};

  const read = async () => {
    if (show.body) await start();
    if (closed) return;
    const ended = new Promise((resolve, reject) => open(address(show, { smooth }), resolve, reject));
    if (unwanted) stop().catch(heard.unstopped);
    await ended;
  };

  const start = async () => {
    const key = Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("");
    const answer = await fetch("v1/chat", {
      method: "POST",
      headers: { ...headers, Accept: "application/json", "Content-Type": "application/json", "Idempotency-Key": key },
      body: JSON.stringify(show.body),
    });
    const { status } = answer;
    const requestId = answer.headers.get("X-Request-Id");
    const data = (await answer.json().catch(() => null)) ?? {};
    if (!data.stream_id) {
      const wait = Number(answer.headers.get("Retry-After")) * 1000;
      const between = `Something between this page and the service answered ${status}.`;
      throw new ChatError(data.error?.message ?? between, { status, code: data.error?.code, wait, requestId });
    }
    heard.known(data.stream_id, ticketOf(data.url));
    heard.answered({ status, requestId, headers: answer.headers });
  };

  const stop = async () => {
    unwanted = true;
    if (!show.id) return; // `read` stops it once it has an id
    const answer = await fetch(address(show), { method: "DELETE", headers });
    if (!answer.ok) throw new Error(`The server answered ${answer.status}.`);
  };

  const close = () => {
    closed = true;
    clearTimeout(timer);
    source?.close();
  };
  return { read, stop, drop: () => drop(), close };
}
