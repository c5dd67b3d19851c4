// The official OpenAI SDK. Prints {chunk} for each chunk, {completion}, {final}, {models}, {model} or {id}, and {error}.
// Arguments: {"url", "action", "body", "options", "headers", "abort"}; with "abort", it leaves after so many chunks.
const { OpenAI } = require("openai");

const { url, action, body, options, headers, abort } = JSON.parse(process.argv[2]);
const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "csk_test", maxRetries: 0, ...options });
const completions = client.chat.completions;

const actions = {
  async create() {
    const { data, response } = await completions.create(body, { headers }).withResponse();
    print({ id: response.headers.get("x-stream-id") });
    if (!body.stream) return print({ completion: data });
    let count = 0;
    for await (const chunk of data) {
      print({ chunk });
      count += 1;
      if (count === abort) data.controller.abort();
    }
  },
  async stream() {
    const stream = completions.stream(body, { headers });
    stream.on("chunk", (chunk) => print({ chunk }));
    print({ final: await stream.finalChatCompletion() });
  },
  async parse() {
    print({ completion: await completions.parse(body, { headers }) });
  },
  async models() {
    const models = [];
    for await (const model of client.models.list()) models.push(model);
    print({ models });
    print({ model: await client.models.retrieve(body.model) });
  },
};

actions[action]().catch(({ constructor, status, code, type, message }) =>
  print({ error: { name: constructor.name, status, code, type, message } }),
);
