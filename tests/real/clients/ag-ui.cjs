// AG-UI's own client over one run after another. Prints what it made of each: {messages, finished, error, warnings}.
// Arguments: {"url", "headers", "messages", "runs"}. A run is {"message", "input"}: what is said, and what is sent beside it.
const { HttpAgent } = require("@ag-ui/client");

const { url, headers, messages = [], runs } = JSON.parse(process.argv[2]);
const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");

const warnings = [];
console.warn = (...words) => warnings.push(words.map(String).join(" "));

const agent = new HttpAgent({ url, headers, initialMessages: messages, threadId: "t" });
(async () => {
  for (const { message, input } of runs) {
    if (message) agent.addMessage(message);
    const found = { error: null };
    const subscriber = {
      onRunErrorEvent: ({ event }) => void (found.error = { code: event.code, message: event.message }),
      onRunFailed: ({ error }) => void (found.error ??= { message: error.message, status: error.status }),
      onRunFinishedEvent: ({ event }) => void (found.finished = event),
    };
    await agent.runAgent(input, subscriber).catch(() => {});
    print({ ...found, messages: agent.messages, warnings: warnings.splice(0) });
  }
})();
