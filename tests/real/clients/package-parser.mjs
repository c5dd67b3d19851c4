// How long the parser takes for one event of each of some lengths, fed in pieces of 1,000 characters. Argument: {"lengths"}.
import { EventParser } from "chat-sse-client";

const { lengths } = JSON.parse(process.argv[2]);
for (const length of lengths) {
  const piece = "x".repeat(1000);
  let best = Infinity;
  for (let round = 0; round < 5; round++) {
    const parser = new EventParser();
    const begun = process.cpuUsage().user;
    parser.feed("data: ");
    for (let fed = 0; fed < length; fed += piece.length) parser.feed(piece);
    const [{ data }] = parser.feed("\n\n");
    best = Math.min(best, process.cpuUsage().user - begun);
    if (data.length !== length) throw new Error(`${data.length} characters`);
  }
  process.stdout.write(JSON.stringify(best) + "\n");
}
