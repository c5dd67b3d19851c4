// OpenAI's Agents SDK: one run of an agent that has a tool. Prints {text, called, deltas}.
// Arguments: {"url", "model", "prompt", "stream"}.
const { Agent, OpenAIProvider, Runner, setTracingDisabled, tool } = require("@openai/agents");

const { url, model, prompt, stream } = JSON.parse(process.argv[2]);
setTracingDisabled(true);
const called = [];
const weather = tool({
  name: "get_weather",
  description: "Say what the weather in a city is.",
  strict: false,
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: true },
  execute: async ({ city }) => {
    called.push(city);
    return `21 degrees in ${city}`;
  },
});
const agent = new Agent({
  name: "Forecaster",
  instructions: "Be brief.",
  model,
  modelSettings: { providerData: { include: ["reasoning.encrypted_content"] } },
  tools: [weather],
});
const runner = new Runner({ modelProvider: new OpenAIProvider({ baseURL: `${url}/v1`, apiKey: "csk_test", useResponses: true }) });

(async () => {
  const result = await runner.run(agent, prompt, { stream });
  let deltas = 0;
  if (stream) {
    for await (const event of result) deltas += event.type === "raw_model_stream_event" && event.data.type === "output_text_delta";
    await result.completed;
  }
  process.stdout.write(JSON.stringify({ text: result.finalOutput, called, deltas }) + "\n");
})().catch((error) => process.stdout.write(JSON.stringify({ failed: String(error) }) + "\n"));
