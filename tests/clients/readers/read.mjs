// Reads a stream of native events with the EventSource of Deno or Bun. Prints each event: its name and data.
// Arguments: the stream's URL, and the module that has an EventSource where the runtime has none.
const [url, module] = (globalThis.Deno?.args ?? process.argv.slice(2)).map(String);
const Source = globalThis.EventSource ?? (await import(module)).EventSource;
const source = new Source(url);
const reading = setInterval(() => {}, 1000); // Bun ends while an EventSource waits for its next connection
for (const name of ["start", "delta", "done", "error"]) {
  source.addEventListener(name, ({ data }) => {
    if (data === undefined) return; // the connection's own error: it comes back by itself
    console.log(`${name} ${data}`);
    if (name !== "done" && name !== "error") return;
    source.close();
    clearInterval(reading);
  });
}
