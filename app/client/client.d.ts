/** The headers of every request, such as Authorization; or a function that returns them, for tokens that expire. */
export type ClientHeaders =
  | HeadersInit
  | (() => HeadersInit | undefined | Promise<HeadersInit | undefined>);

export interface Connection {
  state: "open" | "lost";
  /** Of a lost one: milliseconds until the next try. */
  delay?: number;
  error?: ChatError;
  /** Of an open one: the response's status, headers, and `X-Request-Id`, which the service's log has as well. */
  status?: number;
  headers?: Headers;
  requestId?: string;
}

export interface ReadOptions {
  headers?: ClientHeaders;
  /** Stops reading. To stop the answer itself, call `cancel()`. */
  signal?: AbortSignal;
  /** Milliseconds without a byte, keep-alives included, that count as a cut; 45,000. */
  silence?: number;
  /** Tries in a row, after a failure, before it gives up; 8. While the browser is offline, none counts. */
  retries?: number;
  /**
   * Longest wait before a retry, in milliseconds; 15,000. If the service asks for a longer wait, a stream that has
   * begun waits that long; a stream that has not begun gives up.
   */
  maxDelay?: number;
  onConnection?: (news: Connection) => void;
}

export interface ChatOptions extends ReadOptions {
  /** Where to POST; "/v1/chat". Streams are found beside it. */
  url?: string | URL;
  /** Where streams are; "streams/" beside `url`. */
  streams?: string | URL;
  /** Spreads bursts over so many milliseconds, after a cut too. `chat` takes it from the body's `chunk`. */
  smooth?: number | string;
}

export interface AttachOptions extends ChatOptions {
  /** For `attach` by id: opens the stream without Authorization. A URL brings its own. */
  ticket?: string;
  /** The id of the last event that is known already. */
  after?: string;
}

/** The body of `POST /v1/chat`: a `prompt` or `messages`, and OpenAI's parameters. */
export interface ChatBody {
  prompt?: string;
  messages?: readonly object[];
  model?: string;
  /** What one event holds: `auto`, `none`, `word`, `sentence`, `line`, `size:N`, `time:MS`. */
  chunk?: string;
  /** What happens when the last reader has left: `cancel`, `continue`, `grace:SECONDS`. */
  on_disconnect?: string;
  metadata?: Record<string, string>;
  [parameter: string]: unknown;
}

export type FinishReason = "stop" | "length" | "content_filter" | "tool_calls" | "cancelled" | "unknown" | "other";

/** The upstream's own fields. */
export interface Usage {
  prompt_tokens?: number;
  completion_tokens?: number;
  total_tokens?: number;
  /** The upstream sent none: the service counted. */
  estimated?: true;
  [field: string]: unknown;
}

export interface Done {
  finish_reason: FinishReason;
  /** The upstream's own word, where the reason is `other`. */
  raw_finish_reason?: string;
  usage: Usage | null;
  model: string;
  first_token_ms: number | null;
  duration_ms: number | null;
}

export interface Failure {
  error: { message: string; type: string; code: string; retryable: boolean };
  usage: Usage | null;
}

type Fields = Record<string, unknown>;

/** What each kind of event holds. */
export interface EventData {
  start: { stream_id: string; model: string; created: number; url?: string; fallback?: string };
  delta: { content: string };
  reasoning: { content: string; field?: "reasoning" | "reasoning_text" | "thinking" | "thinking_content" | "thoughts" };
  refusal: { content: string };
  tool_call: { index: number; id?: string; name?: string; arguments: string; type?: "custom"; extra?: Fields };
  annotation: { annotations: unknown[]; citations?: unknown[]; search_results?: unknown[] };
  media: { type: "image" | "audio" | "file"; media_type: string; url: string; field?: string; extra?: Fields };
  logprobs: { content?: object[]; refusal?: object[] };
  extra: { chunk?: Fields; choice?: Fields; delta?: Fields };
  done: Done;
  error: Failure;
}

/** An event with its id, `<stream>-<number>`, by which its stream is resumed. */
export type ChatEvent = {
  [Type in keyof EventData]: { id: string; type: Type; data: EventData[Type] };
}[keyof EventData];
export type TerminalEvent = Extract<ChatEvent, { type: "done" | "error" }>;

/** Start a stream; the POST is sent when it is iterated. */
export function chat(body: ChatBody, options?: ChatOptions): ChatStream;

/**
 * Read a stream that runs or has run: its URL or its id. `headers` and `ticket` go to the origin of `url` only, which is
 * the page's own if it is not given: a stream's URL may come from anywhere.
 */
export function attach(stream: string, options?: AttachOptions): ChatStream;

/** Read a stream that is found by asking `url` for it: it has no events if the answer is a 204. */
export function find(url: string | URL, options?: ChatOptions): ChatStream;

/**
 * The service refused (`status`, `code`) or could not be reached (`status` 0). A stream that fails has an `error` event.
 */
export class ChatError extends Error {
  constructor(message: string, facts?: { status?: number; code?: string; again?: boolean; wait?: number; requestId?: string });
  readonly status: number;
  readonly code: string;
  /** Whether asking again may help, after `wait` milliseconds. */
  readonly again: boolean;
  readonly wait: number;
  /** The response's `X-Request-Id`, or "". */
  readonly requestId: string;
}

/** A stream, resumed wherever it is cut. Reading it throws ChatError, or the signal's reason. */
export class ChatStream implements AsyncIterable<ChatEvent> {
  private constructor();
  /** Known from the service's first answer on. */
  readonly id: string;
  /** The stream's URL, once it has an id; with the ticket that opens it, once the service has sent one. */
  readonly url: string;
  /** The answer so far. */
  readonly text: string;
  readonly lastEventId: string;
  /** The terminal event, once it has come. */
  readonly end: TerminalEvent | null;
  [Symbol.asyncIterator](): AsyncGenerator<ChatEvent, void, void>;
  /** What each read of the connection brought: less work than event by event. */
  batches(): AsyncGenerator<ChatEvent[], void, void>;
  /** Drop the connection, if there is one, and resume on another. */
  reconnect(): void;
  /**
   * Stop the answer: it then ends with `done`, `finish_reason: "cancelled"`. Without an id, this waits for one.
   * `beacon` is for a page that is closing; it sends no `headers`, but the ticket.
   */
  cancel(how?: { beacon?: boolean }): Promise<void>;
}

/** Turns text, in pieces that end anywhere, into events, as the HTML standard says. */
export class EventParser {
  /** The last `retry:` that came, in milliseconds. */
  retry?: number;
  feed(text: string): { id: string; type: string; data: string }[];
}
