// @microsoft/fetch-event-source, its own retries and its tab switch included, in a page made of the few globals it uses.
// Arguments: {"url", "body", "headers", "hide"}; with "hide", the tab is switched away and back after so many messages.
const page = Object.assign(new EventTarget(), { hidden: false });
globalThis.window = globalThis;
globalThis.document = page;
const { fetchEventSource } = require("@microsoft/fetch-event-source");

const { url, body, headers, hide } = JSON.parse(process.argv[2]);
const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");

function turn(hidden) {
  page.hidden = hidden;
  page.dispatchEvent(new Event("visibilitychange"));
}

let count = 0;
fetchEventSource(url, {
  method: "POST",
  headers: { "Content-Type": "application/json", ...headers },
  body: JSON.stringify(body),
  async onopen(answer) {
    print({ event: "open", code: answer.status });
    if (answer.status !== 200) throw new Error(`status ${answer.status}`);
  },
  onmessage({ id, event, data }) {
    print({ event: event || "message", id, data });
    count += 1;
    if (count === hide) {
      turn(true);
      setTimeout(() => turn(false), 50);
    }
  },
  onerror(error) {
    print({ event: "connection", code: error.name });
    if (String(error.message).startsWith("status ")) throw error; // else: the library's retry
  },
}).then(
  () => print({ event: "resolved" }),
  () => print({ event: "rejected" }),
);
