// TanStack AI's chat over its own connection. Prints {status, error, messages} at the end of what was sent.
// Arguments: {"url", "body", "text", "reconnect"}: the last is an option of the connection.
const { url, body, text, reconnect } = JSON.parse(process.argv[2]);
const client = require("path").join(process.env.NODE_PATH, "@tanstack/ai-client/dist/esm/index.js");

(async () => {
  const { ChatClient, fetchServerSentEvents } = await import(client);
  let error = null;
  const chat = new ChatClient({
    connection: fetchServerSentEvents(url, { body, reconnect }),
    onError: (failed) => (error = failed.message),
  });
  await chat.sendMessage(text);
  process.stdout.write(JSON.stringify({ status: chat.getStatus(), error, messages: chat.getMessages() }) + "\n");
})();
