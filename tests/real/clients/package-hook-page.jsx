// A page with chat-sse-client's own hook, in React's strict mode.
import { useChatSse } from "chat-sse-client/react";
import { StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";

window.events = [];
window.renders = 0;

function Answer() {
  const answer = useChatSse({ onEvent: ({ type }) => window.events.push(type) });
  window.answer = answer;
  window.renders += 1;
  const { status, text, reasoning, error, end } = answer;
  return (
    <>
      <output>{status}</output>
      <pre className="answer">{text}</pre>
      <pre className="reasoning">{reasoning}</pre>
      <p>{error?.message ?? end?.finish_reason}</p>
    </>
  );
}

function Page() {
  const [shown, show] = useState(true);
  window.show = show;
  return shown && <Answer />;
}

createRoot(document.getElementById("root")).render(
  <StrictMode>
    <Page />
  </StrictMode>,
);
