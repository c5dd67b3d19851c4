// Reads one stream with chat-sse-client and prints what comes of it.
// Arguments: {"body" or "attach", "options", "key", "stopAt", "stopLost", "leaveAt"}.
import { attach, chat, ChatError } from "chat-sse-client";

const { body, attach: where, options = {}, key, stopAt, stopLost, leaveAt } = JSON.parse(process.argv[2]);
const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");

const news = [];
const onConnection = ({ state, delay, error }) => {
  news.push([state, delay, error?.message]);
  if (stopLost && state === "lost") stream.cancel();
};
const headers = key && (() => Promise.resolve({ Authorization: `Bearer ${key}` }));
const given = { ...options, headers, onConnection };
const stream = body ? chat(body, given) : attach(where, given);
const seen = [];
try {
  if (stopAt === 0) stream.cancel();
  for await (const batch of stream.batches()) {
    seen.push(...batch.map(({ id, type, data }) => [id, type, data]));
    if (stopAt && seen.length >= stopAt && !stream.end) await stream.cancel();
    if (leaveAt && seen.length >= leaveAt) break;
  }
  print({ seen, news, id: stream.id, url: stream.url, text: stream.text, end: stream.end });
} catch (error) {
  const { name, message, status, code } = error;
  print({ seen, news, name, message, status, code, known: error instanceof ChatError });
}
