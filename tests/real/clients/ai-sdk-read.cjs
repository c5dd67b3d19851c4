// The AI SDK reading one stream: the parts that passed its schema, then the message that it made of them.
// Arguments: {"url", "body"}; without a body the url is read with GET.
const { parseJsonEventStream, readUIMessageStream, uiMessageChunkSchema } = require("ai");

const { url, body } = JSON.parse(process.argv[2]);
const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");

(async () => {
  const request = body && { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  const response = await fetch(url, request);
  print({ status: response.status, header: response.headers.get("x-vercel-ai-ui-message-stream") });
  const parts = parseJsonEventStream({ stream: response.body, schema: uiMessageChunkSchema }).pipeThrough(
    new TransformStream({
      transform(part, controller) {
        if (!part.success) throw part.error;
        print({ part: part.value });
        controller.enqueue(part.value);
      },
    }),
  );
  let last;
  try {
    for await (const message of readUIMessageStream({ stream: parts, terminateOnError: true })) last = message;
  } catch (error) {
    print({ error: error.message });
  }
  print({ message: last });
})();
