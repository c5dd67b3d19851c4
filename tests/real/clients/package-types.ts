// A program that uses all types of chat-sse-client. It is checked, and never run.
import { useChat } from "@ai-sdk/react";
import { attach, chat, ChatError, EventParser, find } from "chat-sse-client";
import type { ChatEvent, ChatStream, Done, FinishReason } from "chat-sse-client";
import { ChatSseTransport } from "chat-sse-client/ai-sdk";
import { useChatSse } from "chat-sse-client/react";

export async function read(): Promise<FinishReason> {
  const headers = async () => ({ Authorization: "Bearer x" });
  const stream: ChatStream = chat({ prompt: "hi", temperature: 0 }, { headers, retries: 3, onConnection: ({ state }) => state });
  for await (const event of stream) {
    if (event.type === "delta") event.data.content.toUpperCase();
    if (event.type === "tool_call") event.data.index.toFixed();
    if (event.type === "error") throw new ChatError(event.data.error.message, { code: event.data.error.code });
    // @ts-expect-error: a delta has no arguments
    if (event.type === "delta") event.data.arguments;
  }
  for await (const batch of attach(stream.url, { after: stream.lastEventId }).batches()) batch satisfies ChatEvent[];
  for await (const { id } of find("/v1/ai-sdk/chat/x/stream?dialect=events")) id.trim();
  await stream.cancel({ beacon: true });
  new EventParser().feed("data: x\n\n").map(({ data }) => data);
  // @ts-expect-error: streams are made by `chat` and `attach`
  new stream.constructor() satisfies never;
  // @ts-expect-error: an unknown option
  chat({ prompt: "hi" }, { retry: 3 });
  const done: Done | false = stream.end?.type === "done" && stream.end.data;
  return done ? done.finish_reason : "unknown";
}

export function Page() {
  const transport = new ChatSseTransport({ headers: () => ({ Authorization: "Bearer x" }), body: { model: "m" } });
  const { messages } = useChat({ id: "a-chat-of-this-page", resume: true, transport });
  const { text, status, error, end, send, stop } = useChatSse({ url: "/v1/chat", onEvent: ({ type }) => type });
  void send({ prompt: "hi" }).then(stop);
  return [messages.length, text, status === "lost", error?.status, end && "error" in end];
}
