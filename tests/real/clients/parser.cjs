// eventsource-parser over fetch, as its users write it: POST once, then GET with the last id for as long as it breaks.
// Arguments: {"url", "body"}.
const { createParser } = require("eventsource-parser");

const { url, body } = JSON.parse(process.argv[2]);
const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");

let stream = null;
let last = "";
let ended = false;

async function read(answer) {
  const parser = createParser({
    onEvent({ id, event, data }) {
      print({ event: event ?? "message", id, data });
      last = id ?? last;
      ended ||= event === "done" || event === "error";
    },
    onError: (error) => print({ event: "parser", data: String(error) }),
  });
  for await (const text of answer.body.pipeThrough(new TextDecoderStream())) parser.feed(text);
}

async function main() {
  const headers = { "Content-Type": "application/json" };
  let answer = await fetch(url, { method: "POST", headers, body: JSON.stringify(body) });
  stream = new URL(answer.headers.get("Content-Location"), url);
  while (!ended) {
    try {
      await read(answer);
    } catch (error) {
      print({ event: "connection", code: error.name });
    }
    if (!ended) answer = await fetch(stream, { headers: { "Last-Event-ID": last } });
  }
  const { status } = await fetch(stream, { headers: { "Last-Event-ID": last } });
  print({ event: "status", code: status });
}

main();
