// The official OpenAI SDK's Responses. Prints {event} for each event, {response} or {deleted}, and {error}.
// Arguments: {"url", "action", "body", "id", "after"}.
const { OpenAI } = require("openai");

const { url, action, body, id, after } = JSON.parse(process.argv[2]);
const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const { responses } = new OpenAI({ baseURL: `${url}/v1`, apiKey: "csk_test", maxRetries: 0 });

async function each(events) {
  for await (const event of events) print({ event });
}

async function helper(asked) {
  const stream = responses.stream(asked);
  await each(stream);
  print({ response: await stream.finalResponse() });
}

const actions = {
  async create() {
    const answer = await responses.create(body);
    return body.stream ? each(answer) : print({ response: answer });
  },
  stream: () => helper(body),
  parse: async () => print({ response: await responses.parse(body) }),
  retrieve: async () => print({ response: await responses.retrieve(id) }),
  resume: async () => each(await responses.retrieve(id, { stream: true, starting_after: after })),
  resume_helper: () => helper({ response_id: id, starting_after: after }),
  cancel: async () => print({ response: await responses.cancel(id) }),
  delete: async () => print({ deleted: (await responses.delete(id)) ?? true }),
};

actions[action]().catch(({ constructor, status, code, message }) =>
  print({ error: { name: constructor.name, status, code, message } }),
);
