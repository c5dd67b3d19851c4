// A page of assistant-ui's, with its runtime for the AI SDK. TRANSPORT is "assistant-ui", its own, or "chat-sse".
import {
  AssistantRuntimeProvider,
  ComposerPrimitive,
  MessagePrimitive,
  ThreadPrimitive,
  useAssistantInstructions,
  useAssistantTool,
} from "@assistant-ui/react";
import { AssistantChatTransport, createResumableSessionStorage, useChatRuntime } from "@assistant-ui/react-ai-sdk";
import { ChatSseTransport } from "chat-sse-client/ai-sdk";
import { createRoot } from "react-dom/client";

const api = "/v1/ai-sdk/chat";
const body = { model: window.MODEL };
const resumable = { storage: createResumableSessionStorage(), resumeApi: (id) => `${api}/${id}/stream` };
const transports = {
  "assistant-ui": () => new AssistantChatTransport({ api, body, resumable }),
  "chat-sse": () => new ChatSseTransport({ api, body }),
};
const transport = transports[window.TRANSPORT]();
window.called = [];

function Context() {
  useAssistantInstructions("Be brief.");
  useAssistantTool({
    toolName: "get_weather",
    description: "The weather in a city",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
    execute: async ({ city }) => {
      window.called.push(city);
      return `21 degrees in ${city}`;
    },
  });
  return null;
}

const User = () => (
  <pre className="user">
    <MessagePrimitive.Parts />
  </pre>
);
const Assistant = () => (
  <pre className="assistant">
    <MessagePrimitive.Parts components={{ Text: ({ text }) => text, Empty: () => null, tools: { Fallback: () => null } }} />
  </pre>
);

function Page() {
  const runtime = useChatRuntime({
    transport,
    onError: (error) => (window.failed = error.message),
    sendAutomaticallyWhen: ({ messages }) =>
      messages.at(-1).parts.at(-1)?.state === "output-available" && messages.at(-1).role === "assistant",
  });
  return (
    <AssistantRuntimeProvider runtime={runtime}>
      <Context />
      <ThreadPrimitive.Root>
        <ThreadPrimitive.Messages components={{ UserMessage: User, AssistantMessage: Assistant }} />
        <ThreadPrimitive.If running>
          <output>running</output>
        </ThreadPrimitive.If>
        <ComposerPrimitive.Root>
          <ComposerPrimitive.Input />
          <ComposerPrimitive.Send>Send</ComposerPrimitive.Send>
          <ComposerPrimitive.Cancel>Stop</ComposerPrimitive.Cancel>
        </ComposerPrimitive.Root>
      </ThreadPrimitive.Root>
    </AssistantRuntimeProvider>
  );
}

createRoot(document.getElementById("root")).render(<Page />);
