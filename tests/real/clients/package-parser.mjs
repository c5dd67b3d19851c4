// How long the parser takes for one event of a length, fed in pieces of each of some sizes. Arguments: {"length", "sizes"}.
import { EventParser } from "chat-sse-client";

const { length, sizes } = JSON.parse(process.argv[2]);
for (const size of sizes) {
  const piece = "x".repeat(size);
  let best = Infinity;
  for (let round = 0; round < 3; round++) {
    const parser = new EventParser();
    const begun = process.cpuUsage().user;
    parser.feed("data: ");
    for (let fed = 0; fed < length; fed += size) parser.feed(piece);
    const [{ data }] = parser.feed("\n\n");
    best = Math.min(best, process.cpuUsage().user - begun);
    if (data.length !== length) throw new Error(`${data.length} characters`);
  }
  process.stdout.write(JSON.stringify(best) + "\n");
}
