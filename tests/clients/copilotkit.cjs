// CopilotKit: its runtime over this service, and its core, which is what its React components use, as the page.
// Prints {text, called, error}: what the assistant said last, what its tool was asked, and the error that came.
// Arguments: {"url", "agent", "model", "prompt"}. The agent is "ag-ui", an HttpAgent, or "openai", CopilotKit's own.
globalThis.window = globalThis; // its core connects in a page only
const { createServer } = require("node:http");
const { CopilotRuntime, BuiltInAgent } = require("@copilotkit/runtime/v2");
const { createCopilotNodeListener } = require("@copilotkit/runtime/v2/node");
const { CopilotKitCore } = require("@copilotkit/core");
const { HttpAgent } = require("@ag-ui/client");
const { createOpenAI } = require("@ai-sdk/openai");
const { z } = require("zod");

const { url, agent: kind, model, prompt } = JSON.parse(process.argv[2]);

(async () => {
  const provider = createOpenAI({ baseURL: `${url}/v1`, apiKey: "csk_test" });
  const agents = {
    "ag-ui": () => new HttpAgent({ url: `${url}/v1/ag-ui` }),
    openai: () => new BuiltInAgent({ model: provider(model) }),
  };
  const runtime = new CopilotRuntime({ agents: { default: agents[kind]() } });
  const server = createServer(createCopilotNodeListener({ runtime, basePath: "/api" }));
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));

  let error = null;
  const called = [];
  const core = new CopilotKitCore({ runtimeUrl: `http://127.0.0.1:${server.address().port}/api`, properties: { model }, deferInitialConnection: true });
  const connected = new Promise((resolve) =>
    core.subscribe({
      onRuntimeConnectionStatusChanged: ({ status }) => ["connected", "error"].includes(status) && resolve(),
      onError: (failed) => void (error = { code: failed.code, message: failed.error.message }),
    }),
  );
  core.connect();
  await connected;
  const look = async ({ city }) => {
    called.push(city);
    return `21 degrees in ${city}`;
  };
  core.addTool({ name: "get_weather", description: "", parameters: z.object({ city: z.string() }), handler: look });
  const agent = core.getAgent("default");
  agent.addMessage({ id: "u", role: "user", content: prompt });
  await core.runAgent({ agent }).catch((failed) => (error ??= { message: failed.message }));
  const last = agent.messages.at(-1);
  process.stdout.write(JSON.stringify({ text: last.role === "assistant" ? last.content : "", called, error }) + "\n");
  process.exit(0);
})();
