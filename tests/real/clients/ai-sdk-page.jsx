// A page with useChat that keeps its messages nowhere but in memory, as the AI SDK's own first example does.
import { useChat } from "@ai-sdk/react";
import { DefaultChatTransport } from "ai";
import { createRoot } from "react-dom/client";

const transport = new DefaultChatTransport({ api: "/v1/ai-sdk/chat", body: { model: window.MODEL } });

function Page() {
  const { messages, sendMessage, resumeStream, status } = useChat({ id: window.CHAT, resume: true, transport });
  const submit = (event) => {
    event.preventDefault();
    sendMessage({ text: event.target.prompt.value });
  };
  return (
    <>
      <form onSubmit={submit}>
        <input name="prompt" />
      </form>
      <button onClick={() => resumeStream()}>Resume</button>
      <output>{status}</output>
      {messages.map(({ id, role, parts }) => (
        <pre key={id} className={role}>
          {parts.map((part) => part.text ?? "").join("")}
        </pre>
      ))}
    </>
  );
}

createRoot(document.getElementById("root")).render(<Page />);
