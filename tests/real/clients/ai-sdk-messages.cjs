// What the AI SDK itself sends to OpenAI's API for each of some lists of UI messages. Arguments: {"chats"}.
const { convertToModelMessages, generateText } = require("ai");
const { createOpenAI } = require("@ai-sdk/openai");

const { chats } = JSON.parse(process.argv[2]);

(async () => {
  for (const messages of chats) {
    let sent;
    const fetch = async (url, { body }) => {
      sent = JSON.parse(body).messages;
      throw new Error("enough");
    };
    const model = createOpenAI({ apiKey: "none", fetch }).chat("gpt-4o");
    const options = { ignoreIncompleteToolCalls: true };
    try {
      await generateText({
        model,
        messages: await convertToModelMessages(messages, options),
        allowSystemInMessages: true,
        maxRetries: 0,
      });
    } catch (error) {
      if (sent === undefined) throw error;
    }
    process.stdout.write(JSON.stringify(sent) + "\n");
  }
})();
