// The AI SDK's OpenAI provider, whose default is Responses. Prints {text}, {reasoning}, {finish}, {tools} and {error}.
// Arguments: {"url", "model", "prompt", "providerOptions", "tools"}; with "tools", the model may ask for the weather.
const { createOpenAI } = require("@ai-sdk/openai");
const { jsonSchema, stepCountIs, streamText, tool } = require("ai");

const { url, model, prompt, providerOptions, tools } = JSON.parse(process.argv[2]);
const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey: "csk_test" });
const weather = tool({
  description: "The weather in a city",
  inputSchema: jsonSchema({ type: "object", properties: { city: { type: "string" } } }),
  execute: async ({ city }) => `21 degrees in ${city}`,
});

(async () => {
  const answer = streamText({
    model: openai(model),
    prompt,
    maxRetries: 0,
    onError: ({ error }) => print({ error: { name: error.name, status: error.statusCode, message: error.message } }),
    providerOptions: { openai: providerOptions ?? {} },
    ...(tools ? { tools: { get_weather: weather }, stopWhen: stepCountIs(4) } : {}),
  });
  await answer.consumeStream();
  const steps = await answer.steps;
  const called = steps.flatMap((step) => step.toolResults.map(({ toolName, input, output }) => ({ toolName, input, output })));
  print({
    text: await answer.text,
    reasoning: steps.map((step) => step.reasoningText ?? "").join(""),
    finish: await answer.finishReason,
    tools: called,
  });
})().catch((error) => print({ failed: String(error) }));
