// A page with several useChat at once, whose connections break. window.begin(numbers) asks in so many chats.
import { useChat } from "@ai-sdk/react";
import { useEffect, useRef, useState } from "react";
import { createRoot } from "react-dom/client";
import { transportOf } from "./cut-transports.mjs";

const { transport, name, text, bodies } = window.PLAN;
const ended = (window.ended = []);
console.error = () => {}; // it tells of each cut

function Answer({ number }) {
  const id = `${name} ${number}`;
  const [own] = useState(() => transportOf(transport, "/v1/ai-sdk/chat"));
  const { messages, sendMessage, resumeStream, status, error } = useChat({ id, transport: own });
  useEffect(() => void sendMessage({ text }, { body: bodies[number % bodies.length] }), []);
  const resumed = useRef(0);
  useEffect(() => {
    if (status === "error" && resumed.current++ < 100) resumeStream();
    else if (status === "error" || (status === "ready" && messages.length > 1)) {
      const found = { number, status, error: error?.message, messages, resumed: resumed.current };
      ended.push(JSON.parse(JSON.stringify(found))); // without what is undefined
    }
  }, [status]);
  return <p>{messages.at(-1)?.parts.map((part) => part.text ?? "").join("")}</p>;
}

function Page() {
  const [numbers, begin] = useState([]);
  window.begin = begin;
  return numbers.map((number) => <Answer key={number} number={number} />);
}

createRoot(document.getElementById("root")).render(<Page />);
