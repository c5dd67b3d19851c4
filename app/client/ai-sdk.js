// A transport for the AI SDK's `useChat`, over the native events of chat-sse.
//
//   const transport = new ChatSseTransport({ api: "/v1/ai-sdk/chat" });
//   const { messages, sendMessage, stop } = useChat({ id, resume: true, transport });
//
// The SDK's own transport reads an answer again from its start after a cut. This one goes on after the last event, and
// the SDK notices nothing of it. `stop()` stops the upstream.

import { chat, find } from "./client.js";
import { UIParts } from "./ui-parts.js";

export class ChatSseTransport {
  resumeStreamIsReplay = true; // a page that reconnects gets the message from its start
  #api; #headers; #body; #options; #rejoined = { chatId: "" };

  constructor({ api = "/v1/ai-sdk/chat", headers, body, ...options } = {}) {
    [this.#api, this.#headers, this.#body] = [api, headers, body];
    this.#options = { ...options, streams: `${api}/../../streams/` };
  }

  async sendMessages({ trigger, chatId, messageId, messages, abortSignal, headers, body }) {
    const asked = { ...(await resolved(this.#body)), ...body, id: chatId, messages, trigger, messageId };
    const start = (options) => chat(asked, { ...options, url: this.#url("") });
    return this.#open(chatId, start, headers, abortSignal, messages.at(-1)?.role === "assistant");
  }

  /** null if no answer of the chat is being written. */
  async reconnectToStream({ chatId, abortSignal, headers }) {
    this.#rejoined = { chatId };
    const join = (options) => find(this.#url(`/${encodeURIComponent(chatId)}/stream`), options);
    return this.#open(chatId, join, headers, abortSignal);
  }

  #url(path) { return `${this.#api}${path}?dialect=events`; }

  async #open(chatId, make, more, abortSignal, continues = false) {
    abortSignal?.throwIfAborted();
    const leaving = new AbortController();
    const headers = async () => new Headers([...new Headers(await resolved(this.#headers)), ...new Headers(more)]);
    const stream = make({ ...this.#options, headers, signal: leaving.signal });
    const batches = stream.batches();
    const parts = new UIParts(continues);

    const stop = async () => {
      // The SDK aborts a reader also to put another in its place at once, as it does in React's strict mode.
      const rejoined = this.#rejoined;
      await new Promise((resolve) => setTimeout(resolve));
      if (this.#rejoined !== rejoined && this.#rejoined.chatId === chatId) return leaving.abort();
      try {
        await stream.cancel();
        while (!(await batches.next()).done); // without an id, the stream is cancelled once it has one
      } catch {
        leaving.abort();
      }
    };
    const stopped = new Promise((_, reject) => {
      const aborted = () => {
        reject(abortSignal.reason);
        stop();
      };
      abortSignal?.addEventListener("abort", aborted, { once: true });
    });
    stopped.catch(() => {}); // that it is rejected matters only to those who wait

    /** Return the parts of the next batch that has any; null at the end. */
    const next = async () => {
      for (;;) {
        const { done, value } = await Promise.race([batches.next(), stopped]).catch(fail);
        if (done) return null;
        const found = parts.of(value);
        if (found.length) return found;
      }
    };
    let first = await next();
    if (!first) return null;
    return new ReadableStream({
      async pull(controller) {
        const found = first ?? (await next());
        first = null;
        if (found) for (const part of found) controller.enqueue(part);
        else controller.close();
      },
      cancel() {
        if (!abortSignal?.aborted) leaving.abort();
      },
    });
  }
}

const resolved = (value) => (typeof value === "function" ? value() : value);

/** The SDK takes a TypeError about the network for a disconnect, and resumes when the page is shown again. */
function fail(error) {
  if (error?.code !== "connection_lost" || error.status) throw error;
  throw new TypeError(`network error: ${error.message}`, { cause: error });
}
