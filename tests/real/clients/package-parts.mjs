// What chat-sse-client makes of native events for the AI SDK. Each line of the input is {"batches", "continues"}, where a
// batch is the text of some events; each line of the output is the list of the parts, which passed the SDK's schema.
import { createInterface } from "node:readline";
import { uiMessageChunkSchema } from "ai";
import { EventParser } from "chat-sse-client";
import { UIParts } from "./node_modules/chat-sse-client/ui-parts.js";

const { validate } = uiMessageChunkSchema();
for await (const line of createInterface({ input: process.stdin })) {
  const { batches, continues } = JSON.parse(line);
  const parts = new UIParts(continues);
  const parser = new EventParser();
  const found = batches.flatMap((text) =>
    parts.of(parser.feed(text).map(({ id, type, data }) => ({ id, type, data: JSON.parse(data) }))),
  );
  for (const part of found) {
    const checked = await validate(part);
    if (!checked.success) throw checked.error;
  }
  process.stdout.write(JSON.stringify(found) + "\n");
}
