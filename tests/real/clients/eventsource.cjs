// A native-like EventSource that is left to itself: prints what it dispatches, and ends when the server stops it.
// Arguments: {"url"}.
const { EventSource } = require("eventsource");

const { url } = JSON.parse(process.argv[2]);
const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");

const source = new EventSource(url);
const alive = setInterval(() => {}, 1000); // between two connections nothing else keeps the process
const told = (event) => print({ event: event.type, id: event.lastEventId, data: event.data });
// "message" is what a block without a name would be: there is none.
for (const name of ["start", "delta", "reasoning", "refusal", "tool_call", "done", "message"]) {
  source.addEventListener(name, told);
}
source.addEventListener("error", (event) => {
  if (event.data !== undefined) return told(event); // the stream's own error, not the connection's
  print({ event: "connection", state: source.readyState, code: event.code ?? null });
  if (source.readyState === EventSource.CLOSED) clearInterval(alive);
});
