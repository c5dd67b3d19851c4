import type { ChatBody, ChatError, ChatEvent, ChatOptions, Done, Failure } from "./client.js";

export interface UseChatSseOptions extends Omit<ChatOptions, "signal"> {
  /** Called for each event: tool calls, annotations, media and the rest are there. */
  onEvent?: (event: ChatEvent) => void;
}

export interface ChatSse {
  /** `lost` is between a cut and the next try. A stopped answer is `done`. */
  status: "idle" | "connecting" | "streaming" | "lost" | "done" | "error";
  text: string;
  reasoning: string;
  refusal: string;
  /** What the terminal event said, once it has come: usage, finish reason and times, or the error. */
  end: Done | Failure | null;
  error: ChatError | null;
  id: string;
  /** Where this answer can be read again: keep it, and `follow` it after a reload. */
  url: string;
  /** Ask, and read the answer. The promise is fulfilled when that has ended; errors are in `error`. */
  send(body: ChatBody): Promise<void>;
  /** Read a stream that runs or has run: its URL or its id. */
  follow(stream: string): Promise<void>;
  /** Stop the answer and the upstream. */
  stop(): Promise<void>;
}

/** Reads one answer at a time. A component that goes stops reading; the answer goes on as its `on_disconnect` says. */
export function useChatSse(options?: UseChatSseOptions): ChatSse;
