// TanStack AI over its OpenAI adapter: one chat with a tool. Prints {text, called}.
// Arguments: {"url", "prompt"}.
const { url, prompt } = JSON.parse(process.argv[2]);
const called = [];
// The packages are modules only, which NODE_PATH does not find by their names.
const load = (name) => import(`${process.env.NODE_PATH}/@tanstack/${name}/dist/esm/index.js`);

(async () => {
  const { chat, toolDefinition } = await load("ai");
  const { createOpenaiChat } = await load("ai-openai");
  const weather = toolDefinition({
    name: "get_weather",
    description: "Say what the weather in a city is.",
    inputSchema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  }).server(async ({ city }) => {
    called.push(city);
    return `21 degrees in ${city}`;
  });
  const adapter = createOpenaiChat("gpt-5", "csk_test", { baseURL: `${url}/v1` });
  let text = "";
  for await (const event of chat({ adapter, messages: [{ role: "user", content: prompt }], tools: [weather] })) {
    if (event.type === "TEXT_MESSAGE_CONTENT") text += event.delta;
    if (event.type === "RUN_ERROR") throw new Error(event.message);
  }
  process.stdout.write(JSON.stringify({ text, called }) + "\n");
})().catch((error) => process.stdout.write(JSON.stringify({ failed: String(error) }) + "\n"));
