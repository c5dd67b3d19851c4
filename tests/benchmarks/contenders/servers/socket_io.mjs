// The gateway that this product replaces, written afresh from its description: a NestJS-like class that takes one prompt
// by socket.io, asks upstream with axios and `responseType: 'stream'`, and emits deltas, [DONE], or an error; it logs
// who connects. Kinder than what is usually found: lines that are spread over two reads are put together, and a client
// that leaves takes its request with it.
// node socket_io.mjs PORT UPSTREAM, where UPSTREAM is the base url without /v1.
import http from 'node:http';
import https from 'node:https';
import { createRequire } from 'node:module';

// Not `import`: only require looks into NODE_PATH, where the benchmark keeps the packages.
const require = createRequire(import.meta.url);
const axios = require('axios');
const { Server } = require('socket.io');

const [port, upstream] = process.argv.slice(2);

class ChatGateway {
  constructor() {
    this.api = axios.create({
      baseURL: `${upstream}/v1`,
      headers: { Authorization: `Bearer ${process.env.OPENAI_API_KEY ?? 'none'}` },
      httpAgent: new http.Agent({ keepAlive: true }),
      httpsAgent: new https.Agent({ keepAlive: true }),
    });
  }

  handleConnection(client) {
    console.log(`${new Date().toISOString()} client connected: ${client.id}`);
    const leaving = new AbortController();
    client.on('prompt', (question) => this.handlePrompt(client, question, leaving.signal));
    client.on('disconnect', () => {
      console.log(`${new Date().toISOString()} client disconnected: ${client.id}`);
      leaving.abort();
    });
  }

  async handlePrompt(client, { prompt, model }, signal) {
    try {
      const body = { model, messages: [{ role: 'user', content: prompt }], stream: true };
      const response = await this.api.post('/chat/completions', body, { responseType: 'stream', signal });
      let rest = '';
      response.data.setEncoding('utf8');
      response.data.on('data', (text) => {
        const lines = (rest + text).split('\n');
        rest = lines.pop();
        for (const line of lines) {
          if (!line.startsWith('data: ')) continue;
          const data = line.slice(6);
          if (data === '[DONE]') {
            client.emit('message', '[DONE]');
            continue;
          }
          const content = JSON.parse(data).choices[0]?.delta?.content;
          if (content) client.emit('message', content);
        }
      });
      response.data.on('error', (error) => client.emit('error', error.message));
    } catch (error) {
      client.emit('error', error.message);
    }
  }
}

const server = http.createServer();
const gateway = new ChatGateway();
new Server(server, { cors: { origin: '*' } }).on('connection', (client) => gateway.handleConnection(client));
server.listen(Number(port), '127.0.0.1', 4096);
