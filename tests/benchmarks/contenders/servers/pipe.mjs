// A bare pipe: Node's own http on both sides, bytes passed on as they come.
// node pipe.mjs PORT UPSTREAM, where UPSTREAM is the base url without /v1.
import http from 'node:http';

const [port, upstream] = process.argv.slice(2);
const agent = new http.Agent({ keepAlive: true });

http
  .createServer((request, response) => {
    const { host, ...headers } = request.headers;
    const asked = http.request(upstream + request.url, { agent, method: request.method, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    asked.on('error', () => response.destroy());
    response.on('close', () => asked.destroy());
    request.pipe(asked);
  })
  .listen(Number(port), '127.0.0.1', 4096);
