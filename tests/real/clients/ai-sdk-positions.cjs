// The AI SDK's default transport, asked to reconnect after each of some positions. Prints the chunks that it gets.
// Arguments: {"api", "id", "positions"}.
const { DefaultChatTransport } = require("ai");

const { api, id, positions } = JSON.parse(process.argv[2]);

(async () => {
  for (const position of positions) {
    const transport = new DefaultChatTransport({
      api,
      prepareReconnectToStreamRequest: ({ headers }) => ({ headers: { ...headers, "Last-Event-ID": position } }),
    });
    const stream = await transport.reconnectToStream({ chatId: id });
    const chunks = stream && [];
    for await (const chunk of stream ?? []) chunks.push(chunk);
    console.log(JSON.stringify(chunks));
  }
})();
