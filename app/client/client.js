// The client of chat-sse for browsers, Node, Deno and Bun: an ES module without dependencies. Import it from the
// service (`/client.js`), copy it, or install it (`chat-sse-client`). client.d.ts says what each option is.
//
//   const stream = chat({ prompt: "hi" });
//   for await (const { type, data } of stream) if (type === "delta") show(data.content);
//
// A stream ends with one `done` or `error` event. Without one it was cut, and is resumed after the last event that
// came: nothing twice, nothing lost, nothing paid for twice.

/** Start a stream; the POST is sent when it is iterated. */
export function chat(body, options = {}) {
  const first = { method: "POST", url: options.url ?? "/v1/chat", body: JSON.stringify(body) };
  return new ChatStream(first, "", { smooth: /smooth:(\d+)/.exec(body.chunk)?.[1], ...options });
}

/** Read a stream that runs or has run: its URL or its id. Of a URL, which may come from anywhere, see client.d.ts. */
export function attach(stream, options = {}) {
  if (!stream.includes("/")) return new ChatStream(null, stream, options);
  const url = absolute(stream);
  const service = absolute(options.url ?? base() ?? url); // outside a browser there is no page
  const given = service.origin === url.origin ? options : { ...options, headers: undefined, ticket: undefined };
  const where = { url: service, streams: new URL(".", url), ticket: url.searchParams.get("ticket") ?? given.ticket };
  return new ChatStream(null, url.pathname.split("/").at(-1), { ...given, ...where });
}

/** Read a stream that is found by asking *url* for it: it has no events if the answer is a 204. */
export const find = (url, options = {}) => new ChatStream({ method: "GET", url }, "", options);

/** The service refused (`status`, `code`) or could not be reached. A stream that fails has an `error` event. */
export class ChatError extends Error {
  constructor(message, { status = 0, code = "connection_lost", again = false, wait = 0, requestId = "" } = {}) {
    super(message);
    Object.assign(this, { name: "ChatError", status, code, again, wait, requestId });
  }
}

const cut = (message) => new ChatError(message, { again: true });
// An EventSource takes 429 and 503 for final, so the service sends `retry:` without an event in their place.
const busy = (wait) => new ChatError("The service is busy.", { code: "overloaded", again: true, wait });
const requestId = ({ headers }) => headers.get("X-Request-Id") ?? "";
const number = (id) => Number(id.slice(id.lastIndexOf("-") + 1));
const base = () => globalThis.document?.baseURI ?? globalThis.location?.href;
const absolute = (url) => new URL(url, base());
const either = (...signals) => AbortSignal.any(signals.filter(Boolean));
// A connection that has said nothing for so many milliseconds when the page wakes up may be dead.
const DOUBTFUL = 1000;
const EVENTS = "text/event-stream";

export class ChatStream {
  id = ""; // known from the service's first answer on
  text = ""; // the answer so far
  lastEventId = "";
  end = null; // the terminal event
  #options; #first; #streams; #key; #ticket; #retry = 1000; #unwanted = false; #over = false;
  #connection; #asking; #spare; #pause;

  /** *first* is the request that finds or starts the stream; null if the *id* is known. */
  constructor(first, id, options) {
    const url = absolute(first?.url ?? options.url ?? "/v1/chat");
    [this.id, this.lastEventId, this.#options] = [id, options.after ?? "", options];
    this.#first = first && { ...first, url };
    this.#streams = absolute(options.streams ?? new URL("streams/", url));
    this.#ticket = options.ticket;
    // Not randomUUID, which pages over plain http do not have.
    this.#key = Array.from(crypto.getRandomValues(new Uint8Array(16)), (n) => n.toString(16).padStart(2, "0")).join("");
  }

  /** The stream's URL, once it has an id; with the ticket that opens it, once the service has sent one. */
  get url() { return this.id && this.#at(""); }

  #at(more, query = {}) {
    const url = new URL(`./${this.id}${more}`, this.#streams);
    for (const [name, value] of Object.entries({ ticket: this.#ticket, ...query })) {
      if (value) url.searchParams.set(name, value);
    }
    return url.href;
  }

  /** Event by event. Throws ChatError, or the signal's reason. */
  async *[Symbol.asyncIterator]() {
    for await (const batch of this.#read()) for (const event of batch) yield this.#take(event);
  }

  /** What each read of the connection brought, as a list of events: less work than event by event. */
  async *batches() {
    for await (const batch of this.#read()) yield batch.map((event) => this.#take(event));
  }

  async *#read() {
    const { signal, retries = 8, maxDelay = 15_000, onConnection } = this.#options;
    for (let failures = 0; ; ) {
      signal?.throwIfAborted();
      try {
        for await (const batch of this.#connect()) {
          failures = 0;
          yield batch;
        }
        if (this.#over) return;
        throw cut("The connection closed before the stream ended.");
      } catch (error) {
        signal?.throwIfAborted();
        const problem = error instanceof ChatError ? error : cut(error.message);
        const { again, wait } = problem;
        const offline = globalThis.navigator?.onLine === false; // which is not final, however long it takes
        if (this.#unwanted && !this.id) throw new DOMException("Cancelled before it began.", "AbortError");
        if (!again || (failures >= retries && !offline) || (wait > maxDelay && problem.status)) throw problem;
        const backoff = Math.min(maxDelay, this.#retry * 2 ** failures) * (0.5 + Math.random() / 2);
        if (!offline) failures++;
        const delay = this.#spare ? 0 : Math.max(wait, backoff);
        onConnection?.({ state: "lost", delay, error: problem });
        this.#pause = new AbortController();
        if (delay) await pause(delay, either(signal, this.#pause.signal), wait);
      }
    }
  }

  /** Drop the connection, if there is one, and resume on another. */
  reconnect() { this.#connection?.abort(cut("The connection was dropped.")); }

  /** Stop the answer: it then ends with `done`, `finish_reason: "cancelled"`. Without an id, this waits for one. */
  async cancel({ beacon = false } = {}) {
    this.#unwanted = true;
    if (!this.id) return;
    if (beacon) return void navigator.sendBeacon(this.#at("/cancel"));
    const response = await fetch(this.url, { method: "DELETE", headers: await this.#headers(), keepalive: true });
    if (!response.ok) throw await refusal(response);
    this.#unwanted = false;
    this.#pause?.abort(); // what is left to read is the end
  }

  async *#connect() {
    const { signal, silence = 45_000, onConnection } = this.#options;
    const spare = this.#spare;
    this.#spare = undefined;
    // Connections merge texts differently: one that was asked for the rest after another event is of no use.
    const useful = spare?.after === this.lastEventId;
    if (!useful) spare?.connection.abort();
    const connection = (this.#connection = useful ? spare.connection : new AbortController());
    const dead = () => connection.abort(cut(`Nothing came for ${silence} ms.`));
    const watch = new Watch(silence, dead, (silent) => this.#probe(connection, silent));
    try {
      const response = useful ? spare.response : await watch.over(this.#fetch(either(signal, connection.signal)));
      this.#over = response.status === 204; // there is nothing after the last event id
      if (this.#over) return;
      const mediaType = response.headers.get("Content-Type") ?? "";
      if (!mediaType.startsWith(EVENTS)) {
        // Chromium takes a head that broke off for a whole one.
        if (response.status < 300 && EVENTS.startsWith(mediaType)) throw cut("The connection closed in the head.");
        throw await refusal(response);
      }
      this.id ||= /^[\w-]{22}$/.exec(response.headers.get("X-Stream-Id"))?.[0] ?? "";
      let open = false;
      const opened = () => {
        const { status, headers } = response;
        if (!open) onConnection?.({ state: "open", status, headers, requestId: requestId(response) });
        open = true;
      };
      if (response.headers.has("X-Stream-Id")) opened();
      if (this.#unwanted) await this.cancel();
      const [reader, decoder, parser] = [response.body.getReader(), new TextDecoder(), new EventParser()];
      while (!this.#over) {
        const { done, value } = await watch.over(reader.read());
        if (done && !open && parser.retry) throw busy(parser.retry);
        if (done) return;
        const batch = parser.feed(decoder.decode(value, { stream: true }));
        this.#retry = parser.retry ?? this.#retry;
        if (batch.length) opened();
        const last = number(this.lastEventId);
        const news = batch.filter(({ id }) => number(id) > last);
        if (news.length) yield news;
      }
    } catch (error) {
      throw connection.signal.reason ?? error; // some browsers only say that the body was aborted, and not why
    } finally {
      watch.end();
      connection.abort();
      this.#asking?.abort();
    }
  }

  /**
   * Ask on another connection, and go over to that if it answers while the old one is still *silent*. The old one is
   * kept until then: to drop one that lives might end the stream.
   */
  async #probe(connection, silent) {
    this.#asking?.abort();
    const other = (this.#asking = new AbortController());
    const after = this.lastEventId;
    try {
      const response = await this.#fetch(either(this.#options.signal, other.signal));
      if (!response.headers.has("X-Stream-Id") || !silent()) return other.abort();
      [this.#spare, this.#asking] = [{ connection: other, response, after }, undefined];
      connection.abort(cut("The connection died unnoticed."));
    } catch {
      // The network is not back yet. The next time that the page wakes up, it is asked again.
    }
  }

  async #headers() {
    const { headers } = this.#options;
    return new Headers((await (typeof headers === "function" ? headers() : headers)) ?? {});
  }

  async #fetch(signal) {
    const headers = await this.#headers();
    headers.set("Accept", EVENTS);
    const asks = { headers, signal, cache: "no-store" };
    if (!this.id) {
      const { url, method, body } = this.#first;
      if (body) headers.set("Content-Type", "application/json");
      if (body) headers.set("Idempotency-Key", this.#key);
      return fetch(url, { ...asks, method, body });
    }
    if (this.lastEventId) headers.set("Last-Event-ID", this.lastEventId);
    return fetch(this.#at("", { smooth: this.#options.smooth }), asks);
  }

  #take({ id, type, data: json }) {
    const event = { id, type, data: JSON.parse(json) };
    [this.lastEventId, this.id] = [id, this.id || id.slice(0, id.lastIndexOf("-"))];
    // Only the ticket is taken from the URL: a proxy may have put the service at another path.
    const { url } = type === "start" ? event.data : {};
    if (url) this.#ticket = new URL(url, this.#streams).searchParams.get("ticket") ?? this.#ticket;
    if (type === "delta") this.text += event.data.content;
    if (type === "done" || type === "error") [this.end, this.#over] = [event, true];
    return event;
  }
}

/**
 * Watches how long a connection says nothing. *dead* is called after *silence*, *doubtful* when the page wakes up and
 * nothing has come for a second: it gets a function that says whether that is still so.
 */
class Watch {
  #since = 0; // when it began to be waited for, while it is
  #leaving = new AbortController(); #silence; #doubt;

  constructor(silence, dead, doubtful) {
    const look = () => {
      const left = (this.#since || Date.now()) + silence - Date.now();
      if (left > 0) this.#silence = setTimeout(look, left);
      else dead();
    };
    look();
    const wake = () => {
      const since = this.#since;
      const silent = () => this.#since === since;
      // Again and again, because the browser may ask over an idle connection that has died as well.
      const doubt = (patience) => {
        if (!silent()) return;
        doubtful(silent);
        this.#doubt = setTimeout(doubt, patience, 2 * patience);
      };
      clearTimeout(this.#doubt);
      if (since) this.#doubt = setTimeout(doubt, since + DOUBTFUL - Date.now(), 2 * DOUBTFUL);
    };
    onWake(wake, this.#leaving.signal);
  }

  /** Wait for what the connection brings next. */
  async over(promise) {
    this.#since = Date.now();
    try {
      return await promise;
    } finally {
      this.#since = 0;
    }
  }

  end() {
    clearTimeout(this.#silence);
    clearTimeout(this.#doubt);
    this.#leaving.abort();
  }
}

/** Turns text, in pieces that end anywhere, into events, as the HTML standard says. */
export class EventParser {
  /** The last `retry:` that came, in milliseconds. @type {number | undefined} */ retry;
  #line = ""; #return = false; #id = ""; #type = ""; #data = [];

  /** @param {string} text @returns {{id: string, type: string, data: string}[]} */
  feed(text) {
    if (this.#return && text[0] === "\n") text = text.slice(1); // the rest of a CRLF
    else if (!text) return [];
    this.#return = text.endsWith("\r");
    const [first, ...lines] = text.split(/\r\n?|\n/);
    this.#line += first;
    return lines.flatMap((next) => {
      const events = this.#take(this.#line);
      this.#line = next;
      return events;
    });
  }

  #take(line) {
    const [, name, value] = /^([^:]*):? ?([^]*)$/.exec(line);
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#type = value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    else if (name === "retry" && /^\d+$/.test(value)) this.retry = Number(value);
    if (line) return [];
    const [type, data] = [this.#type || "message", this.#data];
    [this.#type, this.#data] = ["", []];
    return data.length ? [{ id: this.#id, type, data: data.join("\n") }] : [];
  }
}

/** A full service and a proxy's own failures are worth another try; any other error of the service is final. */
async function refusal(response) {
  const { status, headers } = response;
  const body = await response.text().catch(() => "");
  const error = errorIn(body);
  const sentence = headers.get("Content-Type")?.startsWith("text/plain") && body.length < 1000 ? body : "";
  const hint = headers.get("Retry-After") ?? "";
  const wait = Number(hint) * 1000 || Math.max(0, Date.parse(hint) - Date.now()) || 0; // seconds, or a date
  const told = headers.get("X-Should-Retry"); // in each error of the service
  const full = status === 429 || status === 503;
  const again = told ? full && told === "true" : full || status >= 500;
  const message = error?.message ?? (sentence || `The server answered ${status}.`);
  return new ChatError(message, { status, code: error?.code, again, wait, requestId: requestId(response) });
}

function errorIn(body) {
  try {
    return JSON.parse(body).error;
  } catch {
    return undefined;
  }
}

/** Call *wake* whenever the page is shown again or the network is back, until *signal* is aborted. */
function onWake(wake, signal) {
  globalThis.addEventListener?.("online", wake, { signal });
  const shown = () => document.visibilityState === "visible" && wake();
  globalThis.document?.addEventListener("visibilitychange", shown, { signal });
}

/** Wait for *ms*, but at least for *least* only if the page wakes up; and only until an abort. */
async function pause(ms, signal, least = 0) {
  const [over, from] = [new AbortController(), Date.now()];
  const timer = setTimeout(() => over.abort(), ms);
  signal?.addEventListener("abort", () => over.abort(), { signal: over.signal });
  onWake(() => Date.now() - from >= least && over.abort(), over.signal);
  await new Promise((resolve) => over.signal.addEventListener("abort", resolve));
  clearTimeout(timer);
}
