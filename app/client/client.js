// The browser client of chat-sse: an ES module without dependencies. Import it from the service, or copy it.
//
//   const stream = chat({ prompt: "hi" });
//   for await (const { type, data } of stream) if (type === "delta") show(data.content);
//
// A stream ends with one `done` or `error` event. Without one it was cut, and is resumed after the last event that
// came: nothing twice, nothing lost, nothing paid for twice.

/** @typedef {{id: string, type: string, data: any}} ChatEvent  Its `data` is parsed. */
/**
 * @typedef {object} Options
 * @property {string} [url]  Where to POST; "/v1/chat". Streams are found beside it.
 * @property {Record<string, string>} [headers]  For every request, such as Authorization.
 * @property {string} [ticket]  For `attach` by id: opens the stream without Authorization. A `url` brings its own.
 * @property {AbortSignal} [signal]  Stops reading. To stop the answer itself, call `cancel()`.
 * @property {string} [after]  For `attach`: the id of the last event that is known already.
 * @property {number} [smooth]  For `attach`: spread bursts over so many milliseconds.
 * @property {number} [silence]  Milliseconds without a byte, keep-alives included, that count as a cut; 45,000.
 * @property {number} [retries]  Failures in a row before it gives up; 8.
 * @property {number} [maxDelay]  Longest wait before a retry, in milliseconds; 15,000. If the service asks for a longer
 *   wait, a stream that has begun waits that long; a stream that has not begun gives up.
 * @property {(news: {state: "open" | "lost", delay?: number, error?: Error}) => void} [onConnection]
 */

/** Start a stream; the POST is sent when it is iterated. @param {object} body @param {Options} [options] */
export const chat = (body, options = {}) => new ChatStream(body, "", options);

/** Read a stream that runs or has run. @param {string} stream its URL or id @param {Options} [options] */
export function attach(stream, options = {}) {
  if (!stream.includes("/")) return new ChatStream(null, stream, options);
  const url = new URL(stream, globalThis.document?.baseURI);
  const where = { url: new URL("../chat", url).href, ticket: url.searchParams.get("ticket") ?? options.ticket };
  return new ChatStream(null, url.pathname.split("/").at(-1), { ...options, ...where });
}

/** The service refused (`status`, `code`) or could not be reached. A stream that fails has an `error` event. */
export class ChatError extends Error {
  /** @param {string} message @param {{status?: number, code?: string, again?: boolean, wait?: number}} [facts] */
  constructor(message, { status = 0, code = "connection_lost", again = false, wait = 0 } = {}) {
    super(message);
    Object.assign(this, { name: "ChatError", status, code, again, wait });
  }
}

const cut = (message) => new ChatError(message, { again: true });
// An EventSource takes 429 and 503 for final, so the service sends `retry:` without an event in their place.
const busy = (wait) => new ChatError("The service is busy.", { code: "overloaded", again: true, wait });
const number = (id) => Number(id.slice(id.lastIndexOf("-") + 1));

export class ChatStream {
  id = ""; // known from the service's first answer on
  text = ""; // the answer so far
  lastEventId = "";
  /** @type {ChatEvent | null} */ end = null; // the terminal event
  #options; #home; #smooth; #body; #key; #ticket; #connection; #unwanted = false; #over = false; #retry = 1000;

  constructor(body, id, options) {
    [this.id, this.lastEventId, this.#options, this.#body] = [id, options.after ?? "", options, JSON.stringify(body)];
    this.#home = new URL(options.url ?? "/v1/chat", globalThis.document?.baseURI);
    this.#ticket = options.ticket;
    this.#smooth = options.smooth ?? /smooth:(\d+)/.exec(body?.chunk)?.[1];
    // Not randomUUID, which pages over plain http do not have.
    this.#key = Array.from(crypto.getRandomValues(new Uint8Array(16)), (n) => n.toString(16).padStart(2, "0")).join("");
  }

  /** The stream's URL, once it has an id; with the ticket that opens it, once the service has sent one. */
  get url() { return this.id && this.#at(""); }

  #at(more, query = {}) {
    const url = new URL(`streams/${this.id}${more}`, this.#home);
    for (const [name, value] of Object.entries({ ticket: this.#ticket, ...query })) {
      if (value) url.searchParams.set(name, value);
    }
    return url.href;
  }

  /** @returns {AsyncGenerator<ChatEvent, void, void>}  Throws ChatError, or the signal's reason. */
  async *[Symbol.asyncIterator]() {
    const { signal, retries = 8, maxDelay = 15_000, onConnection } = this.#options;
    for (let failures = 0; ; ) {
      signal?.throwIfAborted();
      try {
        for await (const event of this.#connect()) {
          failures = 0;
          yield event;
        }
        if (this.#over) return;
        throw cut("The connection closed before the stream ended.");
      } catch (error) {
        signal?.throwIfAborted();
        const problem = error instanceof ChatError ? error : cut(error.message);
        const { again, wait } = problem;
        if (this.#unwanted && !this.id) throw new DOMException("Cancelled before it began.", "AbortError");
        if (!again || failures >= retries || (wait > maxDelay && problem.status)) throw problem;
        const backoff = Math.min(maxDelay, this.#retry * 2 ** failures++) * (0.5 + Math.random() / 2);
        const delay = Math.max(wait, backoff);
        onConnection?.({ state: "lost", delay, error: problem });
        await pause(delay, signal);
      }
    }
  }

  /** Drop the connection, if there is one, and resume on another. */
  reconnect() { this.#connection?.abort(cut("The connection was dropped.")); }

  /**
   * Stop the answer: it then ends with `done`, `finish_reason: "cancelled"`. Without an id, it waits for one.
   * @param {{beacon?: boolean}} [how]  `beacon` is for a page that is closing; it sends no `headers`, but the ticket.
   */
  async cancel({ beacon = false } = {}) {
    this.#unwanted = true;
    if (!this.id) return;
    if (beacon) return void navigator.sendBeacon(this.#at("/cancel"));
    const response = await fetch(this.url, { method: "DELETE", headers: this.#options.headers, keepalive: true });
    if (!response.ok) throw await refusal(response);
    this.#unwanted = false;
  }

  async *#connect() {
    const { signal, silence = 45_000, onConnection } = this.#options;
    const connection = (this.#connection = new AbortController());
    const soon = (promise) => {
      const timer = setTimeout(() => connection.abort(cut(`Nothing came for ${silence} ms.`)), silence);
      return promise.finally(() => clearTimeout(timer));
    };
    try {
      const either = signal ? AbortSignal.any([signal, connection.signal]) : connection.signal;
      const response = await soon(fetch(...this.#request(either)));
      this.#over = response.status === 204; // there is nothing after the last event id
      if (this.#over) return;
      if (!response.headers.get("Content-Type")?.startsWith("text/event-stream")) throw await refusal(response);
      this.id ||= response.headers.get("X-Stream-Id") ?? "";
      let open = false;
      const opened = () => {
        if (!open) onConnection?.({ state: "open" });
        open = true;
      };
      if (response.headers.has("X-Stream-Id")) opened();
      if (this.#unwanted) await this.cancel();
      const [reader, decoder, parser] = [response.body.getReader(), new TextDecoder(), new EventParser()];
      while (!this.#over) {
        const { done, value } = await soon(reader.read());
        if (done && !open && parser.retry) throw busy(parser.retry);
        if (done) return;
        for (const event of parser.feed(decoder.decode(value, { stream: true }))) {
          opened();
          if (number(event.id) > number(this.lastEventId)) yield this.#take(event);
        }
        this.#retry = parser.retry ?? this.#retry;
      }
    } finally {
      connection.abort();
    }
  }

  #request(signal) {
    const headers = { ...this.#options.headers, Accept: "text/event-stream" };
    if (!this.id) {
      Object.assign(headers, { "Content-Type": "application/json", "Idempotency-Key": this.#key });
      return [this.#home, { method: "POST", headers, body: this.#body, signal }];
    }
    if (this.lastEventId) headers["Last-Event-ID"] = this.lastEventId;
    return [this.#at("", { smooth: this.#smooth }), { headers, signal, cache: "no-store" }];
  }

  #take({ id, type, data: json }) {
    const event = { id, type, data: JSON.parse(json) };
    [this.lastEventId, this.id] = [id, this.id || id.slice(0, id.lastIndexOf("-"))];
    // Only the ticket is taken from the URL: a proxy may have put the service at another path.
    const { url } = type === "start" ? event.data : {};
    if (url) this.#ticket = new URL(url, this.#home).searchParams.get("ticket") ?? this.#ticket;
    if (type === "delta") this.text += event.data.content;
    if (type === "done" || type === "error") [this.end, this.#over] = [event, true];
    return event;
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
  const error = (await response.json().catch(() => null))?.error;
  const hint = headers.get("Retry-After") ?? "";
  const wait = Number(hint) * 1000 || Math.max(0, Date.parse(hint) - Date.now()) || 0; // seconds, or a date
  const again = status === 429 || status === 503 ? error?.retryable !== false : status >= 500 && !error;
  return new ChatError(error?.message ?? `The server answered ${status}.`, { status, code: error?.code, again, wait });
}

/** Wait, but only until an abort, or until the network is back. */
async function pause(ms, signal) {
  const over = new AbortController();
  const timer = setTimeout(() => over.abort(), ms);
  signal?.addEventListener("abort", () => over.abort(), { signal: over.signal });
  globalThis.addEventListener?.("online", () => over.abort(), { signal: over.signal });
  await new Promise((resolve) => over.signal.addEventListener("abort", resolve));
  clearTimeout(timer);
}
