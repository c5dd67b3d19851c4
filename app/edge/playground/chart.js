// A stream on an axis of time: when it was answered, its first event and token, its deltas, and its cuts.

import { $, make, time } from "./page.js";

const BARS = 120;
const CUTS = 20; // shown
const HEIGHT = 40;
const NAMES = { open: "Answered", event: "First event", token: "First token", end: "Ended" };

const svg = (name, attributes) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  return made;
};

export class Chart {
  #asked; #marks = new Map(); #bars = new Array(BARS).fill(0); #width = 5; #cuts = [];

  /** *asked* is when the request was sent, or when a page attached to a stream of another. */
  constructor(asked) {
    this.#asked = asked;
  }

  /** Note when something came for the first time: `open`, `event`, `token` or `end`. */
  mark(name, now) {
    if (!this.#marks.has(name)) this.#marks.set(name, now - this.#asked);
  }

  /** Count characters of a delta. */
  add(characters, now) {
    const at = now - this.#asked;
    while (at >= BARS * this.#width) {
      // Twice as much time in each bar.
      this.#bars = this.#bars.map((_, n) => (2 * n < BARS ? this.#bars[2 * n] + this.#bars[2 * n + 1] : 0));
      this.#width *= 2;
    }
    this.#bars[Math.floor(at / this.#width)] += characters;
  }

  cut(now) {
    if (this.#cuts.length < CUTS && this.#cuts.at(-1)?.to !== null) this.#cuts.push({ from: now - this.#asked, to: null });
  }

  resume(now) {
    if (this.#cuts.at(-1)?.to === null) this.#cuts.at(-1).to = now - this.#asked;
  }

  draw(now) {
    const until = this.#marks.get("end") ?? now - this.#asked;
    const x = (at) => Math.min(100, (at / Math.max(until, 1)) * 100).toFixed(2);
    const highest = Math.max(...this.#bars, 1);
    const bars = this.#bars.map((count, n) => {
      const height = ((count / highest) * (HEIGHT - 4)).toFixed(1);
      return count && `M${x(n * this.#width)} ${HEIGHT}V${HEIGHT - height}H${x((n + 1) * this.#width)}V${HEIGHT}Z`;
    });
    $("chart").replaceChildren(
      ...this.#cuts.map(({ from, to }) =>
        svg("rect", { class: "cut", x: x(from), width: Math.max(0.5, x(to ?? until) - x(from)), y: 0, height: HEIGHT })),
      svg("path", { class: "deltas", d: bars.filter(Boolean).join("") }),
      ...[...this.#marks].map(([name, at]) => svg("path", { class: name, d: `M${x(at)} 0V${HEIGHT}` })),
    );
    const words = [
      ...[...this.#marks].map(([name, at]) => [name, `${NAMES[name]} ${time(at)}`]),
      ...this.#cuts.map(({ from, to }) => ["cut", `Cut ${time(from)}–${to === null ? "" : time(to)}`]),
    ];
    $("legend").replaceChildren(...words.map(([className, text]) => make("li", { className }, text)));
    $("timing").hidden = !words.length;
  }
}
