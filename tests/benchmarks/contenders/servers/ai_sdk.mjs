// Vercel's AI SDK as its documentation has it: streamText, piped to the response as a UI message stream.
// node ai_sdk.mjs PORT UPSTREAM, where UPSTREAM is the base url without /v1.
import http from 'node:http';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

// The packages are modules, which do not look into NODE_PATH, where the benchmark keeps them; so say where they are.
const home = createRequire(`${process.env.NODE_PATH}/`);
const load = async (name) => import(pathToFileURL(home.resolve(name)).href);
const { convertToModelMessages, streamText, ...ai } = await load('ai');
const { createOpenAICompatible } = await load('@ai-sdk/openai-compatible');

const [port, upstream] = process.argv.slice(2);
const provider = createOpenAICompatible({ name: 'simulator', baseURL: `${upstream}/v1`, apiKey: 'none' });

async function chat(body, response) {
  const leaving = new AbortController();
  response.on('close', () => leaving.abort());
  const result = streamText({
    model: provider(body.model),
    messages: await convertToModelMessages(body.messages),
    maxRetries: 0,
    abortSignal: leaving.signal,
    onError: () => {}, // it goes into the stream; not into the log, a line for each
  });
  result.pipeUIMessageStreamToResponse(response);
}

http
  .createServer((request, response) => {
    const pieces = [];
    request.on('data', (piece) => pieces.push(piece));
    request.on('end', () => {
      chat(JSON.parse(Buffer.concat(pieces)), response).catch((error) => {
        if (response.headersSent) response.destroy();
        else response.writeHead(500).end(String(error));
      });
    });
  })
  .listen(Number(port), '127.0.0.1', 4096);
