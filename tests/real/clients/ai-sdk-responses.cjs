// The AI SDK's providers of Responses: OpenAI's, whose default it is, and Open Responses'. Prints {text, reasoning,
// finish, tools, output}, the last the tokens of the last step, and {error}. Arguments: {"url", "model", "prompt",
// "provider", "providerOptions", "tools", "whole"}; with "tools", the model may ask for the weather; with "whole",
// nothing is streamed.
const { createOpenAI } = require("@ai-sdk/openai");
const { createOpenResponses } = require("@ai-sdk/open-responses");
const { generateText, jsonSchema, stepCountIs, streamText, tool } = require("ai");

const { url, model, prompt, provider = "openai", providerOptions, tools, whole } = JSON.parse(process.argv[2]);
const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const told = (error) => ({ error: { name: error.name, status: error.statusCode, message: error.message } });
const providers = {
  openai: () => createOpenAI({ baseURL: `${url}/v1`, apiKey: "csk_test" }),
  "open-responses": () => createOpenResponses({ name: "local", url: `${url}/v1/responses`, apiKey: "csk_test" }),
};
const weather = tool({
  description: "The weather in a city",
  inputSchema: jsonSchema({ type: "object", properties: { city: { type: "string" } } }),
  execute: async ({ city }) => `21 degrees in ${city}`,
});
const asked = {
  model: providers[provider]()(model),
  prompt,
  maxRetries: 0,
  providerOptions: { openai: providerOptions ?? {} },
  ...(tools ? { tools: { get_weather: weather }, stopWhen: stepCountIs(4) } : {}),
};

async function streamed() {
  const answer = streamText({ ...asked, onError: ({ error }) => print(told(error)) });
  await answer.consumeStream();
  return { steps: await answer.steps, text: await answer.text, finishReason: await answer.finishReason };
}

(async () => {
  const { steps, text, finishReason } = await (whole ? generateText(asked) : streamed());
  print({
    text,
    reasoning: steps.map((step) => step.reasoningText ?? "").join(""),
    finish: finishReason,
    tools: steps.flatMap((step) => step.toolResults.map(({ toolName, input, output }) => ({ toolName, input, output }))),
    output: steps.at(-1).usage.outputTokens,
  });
})().catch((error) => print(whole ? told(error) : { failed: String(error) }));
