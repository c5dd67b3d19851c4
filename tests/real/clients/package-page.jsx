// A page with useChat over chat-sse-client's transport, in React's strict mode, which mounts each component twice.
import { useChat } from "@ai-sdk/react";
import { ChatSseTransport } from "chat-sse-client/ai-sdk";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

window.news = [];
const transport = new ChatSseTransport({
  body: () => ({ model: window.MODEL, chunk: window.CHUNK }),
  headers: () => ({ "X-Page": "page" }),
  onConnection: ({ state }) => window.news.push(state),
  ...window.OPTIONS,
});

function Page() {
  const { messages, sendMessage, resumeStream, stop, status, error } = useChat({
    id: window.CHAT,
    resume: true,
    transport,
    onFinish: ({ isAbort, isDisconnect, isError }) => (window.finished = { isAbort, isDisconnect, isError }),
  });
  window.messages = messages;
  const submit = (event) => {
    event.preventDefault();
    sendMessage({ text: event.target.prompt.value });
  };
  return (
    <>
      <form onSubmit={submit}>
        <input name="prompt" />
      </form>
      <button id="resume" onClick={() => resumeStream()}>Resume</button>
      <button id="stop" onClick={() => stop()}>Stop</button>
      <output>{status}</output>
      <p>{error?.message}</p>
      {messages.map(({ id, role, parts }) => (
        <pre key={id} className={role}>
          {parts.map((part) => part.text ?? "").join("")}
        </pre>
      ))}
    </>
  );
}

createRoot(document.getElementById("root")).render(
  <StrictMode>
    <Page />
  </StrictMode>,
);
