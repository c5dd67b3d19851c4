// A React hook that reads one answer at a time.
//
//   const { text, status, error, send, stop } = useChatSse();
//   <button onClick={() => send({ prompt: "hi" })}>Ask</button>

import { useCallback, useEffect, useRef, useState } from "react";
import { attach, chat, ChatError } from "./client.js";

const IDLE = { status: "idle", text: "", reasoning: "", refusal: "", end: null, error: null, id: "", url: "" };
// However many events come, the page is rendered once a frame; where there are no frames, as often.
const nextFrame = globalThis.requestAnimationFrame ?? ((paint) => setTimeout(paint, 16));

export function useChatSse(options = {}) {
  const [state, setState] = useState(IDLE);
  const latest = useRef(options);
  useEffect(() => void (latest.current = options));
  const reading = useRef(null);

  const leave = useCallback(() => reading.current?.leaving.abort(), []);
  useEffect(() => leave, [leave]); // the answer goes on without this page, as its `on_disconnect` says

  const read = useCallback(async (make) => {
    leave();
    const { onEvent, onConnection, ...others } = latest.current;
    const mine = (reading.current = { leaving: new AbortController(), stream: null });
    const show = (change) => reading.current === mine && setState((shown) => ({ ...shown, ...change }));
    const told = (news) => {
      show({ status: news.state === "open" ? "streaming" : "lost" });
      onConnection?.(news);
    };
    const stream = (mine.stream = make({ ...others, signal: mine.leaving.signal, onConnection: told }));
    const beside = { reasoning: "", refusal: "" };
    let stale = false; // the page does not show all that has come
    const paint = (change) => {
      stale = false;
      show({ text: stream.text, ...beside, id: stream.id, url: stream.url, ...change });
    };
    setState({ ...IDLE, status: "connecting" });
    try {
      for await (const batch of stream.batches()) {
        for (const event of batch) {
          if (Object.hasOwn(beside, event.type)) beside[event.type] += event.data.content;
          onEvent?.(event);
        }
        if (!stale) nextFrame(() => stale && paint());
        stale = true;
      }
      const { type, data } = stream.end ?? { type: "done", data: null };
      const error = type === "error" ? new ChatError(data.error.message, data.error) : null;
      paint({ status: type, end: data, error });
    } catch (error) {
      paint(error.name === "AbortError" ? { status: "idle" } : { status: "error", error });
    }
  }, [leave]);

  const send = useCallback((body) => read((given) => chat(body, given)), [read]);
  const follow = useCallback((stream) => read((given) => attach(stream, given)), [read]);
  const stop = useCallback(async () => reading.current?.stream.cancel(), []);
  return { ...state, send, follow, stop };
}
