// The AI SDK's own chat over its own transport, doing what it is told and printing what it has after each step.
// Arguments: {"api", "id", "messages", "body", "headers", "steps"}. A step is [name, argument].
const { AbstractChat, DefaultChatTransport, lastAssistantMessageIsCompleteWithToolCalls } = require("ai");

const { api, id, messages = [], body, headers, steps } = JSON.parse(process.argv[2]);
const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");

let watching = () => {};
const state = {
  status: "ready",
  error: undefined,
  messages,
  pushMessage: (message) => show([...state.messages, message]),
  popMessage: () => show(state.messages.slice(0, -1)),
  replaceMessage: (index, message) => show(state.messages.with(index, structuredClone(message))),
  snapshot: structuredClone,
};
function show(shown) {
  state.messages = shown;
  watching();
}

let finished = null;
class Chat extends AbstractChat {}
const chat = new Chat({
  id,
  state,
  transport: new DefaultChatTransport({ api, body, headers }),
  sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithToolCalls,
  onFinish: ({ isAbort, isDisconnect, isError, finishReason }) => {
    finished = { isAbort, isDisconnect, isError, finishReason };
  },
});

const said = () =>
  (chat.lastMessage?.role === "assistant" ? chat.lastMessage.parts : [])
    .map((part) => part.text ?? "")
    .join("");
let pending;
const perform = {
  send: (text) => chat.sendMessage({ text }),
  submit: () => chat.sendMessage(), // the messages as they are
  regenerate: () => chat.regenerate(),
  resume: () => chat.resumeStream(),
  stop: () => chat.stop(),
  output: ({ toolCallId, ...output }) => chat.addToolOutput({ toolCallId, ...output }),
  // Without waiting for its end: until so many characters of the answer are there.
  begin: ([name, argument, length]) =>
    new Promise((resolve) => {
      watching = () => said().length >= length && resolve();
      pending = perform[name](argument);
    }),
  end: () => pending,
  settled: () =>
    new Promise((resolve) => {
      const look = () => (["ready", "error"].includes(chat.status) ? resolve() : setTimeout(look, 10));
      look();
    }),
  fetch: async ([method, path]) => print({ answer: (await fetch(api + path, { method })).status }),
};

(async () => {
  for (const [name, argument] of steps) {
    await perform[name](argument);
    print({ step: name, status: chat.status, error: chat.error?.message, messages: state.messages, finished });
  }
})();
