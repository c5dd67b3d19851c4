// TanStack AI's chat in a page that is reloaded in the middle of an answer: the second page has the thread's id only.
// Prints {status, error, text, joined, names}: what the second page made of the answer, what the run's own address said
// once it was over, and the names under which the runs were asked for.
// Arguments: {"url", "body", "text"}.
const { url, body, text } = JSON.parse(process.argv[2]);
const client = require("path").join(process.env.NODE_PATH, "@tanstack/ai-client/dist/esm/index.js");

(async () => {
  const { ChatClient, fetchServerSentEvents } = await import(client);
  const names = [];
  const fetchClient = (...request) => {
    names.push(request[1].headers["X-Run-Id"] ?? null);
    return fetch(...request);
  };
  const connection = fetchServerSentEvents(url, { body, fetchClient });
  const threadId = `thread-${crypto.randomUUID()}`;
  const said = (messages) =>
    messages.flatMap((message) => (message.role === "assistant" ? message.parts : [])).map((part) => part.content).join("");

  const begun = Promise.withResolvers();
  const first = new ChatClient({ threadId, connection, onMessagesChange: (messages) => said(messages) && begun.resolve() });
  first.sendMessage(text);
  await begun.promise;
  first.stop();

  let error = null;
  const whole = Promise.withResolvers();
  const second = new ChatClient({
    threadId,
    connection,
    persistence: true,
    onError: (failed) => (error = failed.message),
    onStatusChange: (status) => ["ready", "error"].includes(status) && whole.resolve(),
  });
  second.attach();
  await whole.promise;

  let joined = "";
  for await (const event of connection.joinRun(names[0])) joined += event.type === "TEXT_MESSAGE_CONTENT" ? event.delta : "";
  process.stdout.write(
    JSON.stringify({ status: second.getStatus(), error, text: said(second.getMessages()), joined, names }) + "\n",
  );
  process.exit(0);
})();
