import type { ChatTransport, UIMessage } from "ai";
import type { ClientHeaders, ReadOptions } from "./client.js";

export interface ChatSseTransportOptions extends Omit<ReadOptions, "headers" | "signal"> {
  /** Where the service's AI SDK dialect is; "/v1/ai-sdk/chat". */
  api?: string;
  headers?: ClientHeaders;
  /** Fields of every request's body, such as `model`; or a function that returns them. */
  body?: object | (() => object | undefined | Promise<object | undefined>);
}

/**
 * A transport for `useChat` that resumes a cut stream after its last event, and whose `stop()` stops the upstream. A
 * page that reconnects (`resume: true`) gets the answer that is being written from its start.
 */
export class ChatSseTransport<M extends UIMessage = UIMessage> implements ChatTransport<M> {
  constructor(options?: ChatSseTransportOptions);
  readonly resumeStreamIsReplay: true;
  sendMessages: ChatTransport<M>["sendMessages"];
  reconnectToStream: ChatTransport<M>["reconnectToStream"];
}
