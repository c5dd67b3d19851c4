// A page with useChat over the AI SDK's WorkflowChatTransport, as README has it, which keeps the id of the run.
import { useChat } from "@ai-sdk/react";
import { WorkflowChatTransport } from "@ai-sdk/workflow/client";
import { createRoot } from "react-dom/client";

const api = window.API ?? "/v1/ai-sdk/chat";

class Transport extends WorkflowChatTransport {
  resumeStreamIsReplay = true;

  async reconnectToStream(options) {
    const run = localStorage.getItem("run");
    return run === null ? null : super.reconnectToStream({ ...options, chatId: run });
  }
}

const transport = new Transport({
  api,
  maxConsecutiveErrors: 20,
  onChatSendMessage: (response) => localStorage.setItem("run", response.headers.get("X-Workflow-Run-Id")),
  ...window.OPTIONS,
});

function Page() {
  const { messages, sendMessage, status, error } = useChat({
    resume: true,
    transport,
    onFinish: ({ isDisconnect }) => isDisconnect || localStorage.removeItem("run"),
  });
  window.messages = messages;
  const submit = (event) => {
    event.preventDefault();
    sendMessage({ text: event.target.prompt.value }, { body: { model: window.MODEL } });
  };
  return (
    <>
      <form onSubmit={submit}>
        <input name="prompt" />
      </form>
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

createRoot(document.getElementById("root")).render(<Page />);
