// One turn of the conversation: a question, and all that its answer says.

import { Markdown } from "./markdown.js";
import { $, link, make, webAddress } from "./page.js";

const SHORT = 200; // characters of a question
const SHOWN = 200; // sources, and as many pictures; the list of events has the others

/** Text goes into the page as text nodes, with a block per line, so a long answer costs no more than a short one. */
class Prose {
  #element; #waiting = []; #line = null;

  constructor(element) {
    this.#element = element;
    element.replaceChildren();
  }

  add(text) {
    this.#waiting.push(text);
  }

  /** Returns whether something is left to be shown. */
  flush() {
    const text = this.#waiting.join("");
    if (!text) return false;
    this.#waiting = [];
    for (const piece of text.match(/[^\n]*\n|[^\n]+/g)) {
      this.#line ??= this.#element.appendChild(make("div"));
      this.#line.append(piece);
      if (piece.endsWith("\n")) this.#line = null;
    }
    return false;
  }
}

export class Turn {
  text = []; characters = 0; refused = false;
  #parts = {}; #prose; #sources = new Map(); #pieces = new Map(); #repaint; #rendered; #refusal = [];
  /** The calls of tools, by index. */ #calls = new Map(); #extra = {};

  /**
   * *messages* are what this turn adds to the conversation before the answer. *asked* is shown as the question.
   * *repaint* is called when something is to be painted that comes from no event. *rendered*: the answer is Markdown.
   */
  constructor(asked, messages, repaint, rendered) {
    [this.asked, this.messages, this.#repaint] = [asked, messages, repaint];
    this.element = $("turn").content.cloneNode(true).firstElementChild;
    for (const part of this.element.querySelectorAll("[class]")) this.#parts[part.classList[0]] = part;
    const { reasoning, refusal } = this.#parts;
    this.#prose = { reasoning: new Prose(reasoning), refusal: new Prose(refusal) };
    this.render(rendered);
    this.#parts.asked.textContent = asked;
    this.#parts.asked.hidden = !asked;
    if (asked.length > SHORT) this.#parts.asked.tabIndex = 0; // it may have to be scrolled
  }

  /** Show the answer as rendered Markdown, or as it came. */
  render(rendered) {
    const { answer } = this.#parts;
    this.#rendered = rendered;
    answer.classList.toggle("markdown", rendered);
    this.#prose.delta = rendered ? new Markdown(answer) : new Prose(answer);
    this.#prose.delta.add(this.text.join(""));
    this.#repaint();
  }

  /** Take a part of the answer. Events of other kinds are none of a turn's. */
  take(type, data) {
    if (type === "delta" || type === "reasoning" || type === "refusal") this.#say(type, data.content);
    else if (type === "tool_call") this.#called(data);
    else if (type === "annotation") this.#cited(data);
    else if (type === "media") this.#pictured(data);
    else if (type === "extra") this.#kept(data.delta ?? {});
  }

  #say(type, content) {
    this.#prose[type].add(content);
    if (type === "reasoning") this.#parts.thinking.hidden = false;
    if (type === "refusal") {
      this.refused = true;
      this.#refusal.push(content);
      this.#parts.refusal.hidden = false;
    }
    if (type !== "delta") return;
    this.text.push(content);
    this.characters += [...content].length;
  }

  #called({ index, id, name, type = "function", arguments: more, extra }) {
    this.#parts.calls.hidden = false;
    if (!this.#calls.has(index)) {
      const words = make("div", { className: "call" });
      const result = make("textarea", { rows: 1, placeholder: "content", autocomplete: "off" });
      const label = make("label", { className: "result", hidden: true }, "Its result ", result);
      this.#parts.calls.append(words, label);
      this.#calls.set(index, { words, label, result, name: [], text: [], extra: {} });
    }
    const call = this.#calls.get(index);
    call.type ??= type;
    call.id ??= id;
    if (name) call.name.push(name);
    if (more) call.text.push(more);
    Object.assign(call.extra, extra);
  }

  /** Keep what the provider wants back with the message. A list comes in pieces. */
  #kept(fields) {
    for (const [name, value] of Object.entries(fields)) {
      this.#extra[name] = Array.isArray(value) ? [...(this.#extra[name] ?? []), ...value] : value;
    }
  }

  /** Show notes on the answer as its sources. Providers give them as OpenAI's annotations or as Perplexity's lists. */
  #cited({ annotations, citations = [], search_results: results = [] }) {
    for (const note of [...citations, ...results, ...annotations]) {
      const { url, title, filename } = typeof note === "string" ? { url: note } : (note?.[note.type] ?? note ?? {});
      const address = webAddress(url);
      const key = address || JSON.stringify(note);
      if (!this.#sources.has(key)) {
        if (this.#sources.size === SHOWN) return;
        const row = this.#parts.sources.lastElementChild.appendChild(make("li"));
        this.#sources.set(key, address ? row.appendChild(link(address)) : row);
      }
      const words = title || (address ? "" : filename || key);
      if (words) this.#sources.get(key).textContent = String(words).slice(0, 200);
      this.#parts.sources.hidden = false;
    }
  }

  /** Show an image that came with the answer, a link to what would have to be loaded, and a count of what else came. */
  #pictured({ type, media_type: kind, url }) {
    const name = `${type}, ${kind}`;
    const box = this.#parts.media;
    box.hidden = false;
    const address = webAddress(url);
    if (address || (type === "image" && url.startsWith("data:image/"))) {
      if (box.children.length >= SHOWN) return;
      const image = { src: url, alt: "An image of the answer", onload: this.#repaint };
      box.append(address ? link(address, `${name}: ${url}`) : make("img", image));
      return;
    }
    const others = this.#pieces.get(name) ?? { element: box.appendChild(make("div")), count: 0 };
    this.#pieces.set(name, others);
    others.count += 1;
    others.element.textContent = `${name}: ${others.count} ${others.count === 1 ? "event" : "events"}`;
  }

  /** Returns whether something is left to be painted. */
  paint() {
    for (const { words, name, text } of this.#calls.values()) words.textContent = `${name.join("")} ${text.join("")}`;
    return Object.values(this.#prose).filter((part) => part.flush()).length > 0;
  }

  set busy(is) { this.#parts.answer.setAttribute("aria-busy", is); }

  /** Whether something came that the next request has to say again. */
  get came() { return this.text.length + this.#refusal.length + this.#calls.size > 0; }

  /** Whether the answer waits for what its tools return. */
  get calling() { return this.#calls.size > 0; }

  /** Show how the answer ended: *name* is `done`, `stopped` or `error`. */
  end(name, words) {
    const { verdict, ending, copies } = this.#parts;
    Object.assign(verdict, { hidden: false }).dataset.state = name;
    ending.textContent = words;
    copies.hidden = false;
    copies.querySelector("[data-copy=answer]").hidden = !this.characters;
    for (const { label } of this.#calls.values()) label.hidden = name !== "done";
  }

  /** Show whether the text is that of the server's own copy, *content*. *cuts* is how often the stream was resumed. */
  compare(content, whole, cuts) {
    this.paint();
    const shown = this.#rendered ? content : this.#parts.answer.textContent;
    const same = content === this.text.join("") && content === shown;
    const after = cuts ? `, after ${cuts} ${cuts === 1 ? "cut" : "cuts"}` : "";
    const characters = `${this.characters.toLocaleString("en")} characters`;
    this.say(
      !same
        ? "✗ This is not the text that the server has."
        : whole && !this.refused
          ? `✓ Whole${after}: all ${characters} are what the server has.`
          : `The ${characters} that came${after} are what the server has.`,
    );
    this.#parts.whole.dataset.same = same ? "yes" : "no";
  }

  /** Say *words* below how the answer ended. */
  say(words) { this.#parts.whole.textContent = words; }

  /** Show what a turn `said` before the page was loaded again. */
  restore(said) {
    const [reply, ...results] = said.slice(this.messages.length);
    const { role, content, tool_calls: calls = [], ...extra } = reply;
    if (content) this.take("delta", { content });
    for (const [index, { id, type, [type]: called, ...more }] of calls.entries()) {
      this.take("tool_call", { index, id, type, name: called.name, arguments: called.arguments ?? called.input, extra: more });
      this.#calls.get(index).result.value = results[index].content;
    }
    this.take("extra", { delta: extra });
    this.end("done", "From before this page was loaded.");
  }

  /** The turn as the next request has it: OpenAI's messages. A question that got no answer is not among them. */
  get said() {
    if (!this.came) return [];
    const content = this.text.join("") || this.#refusal.join("") || null;
    const calls = [...this.#calls.values()];
    const reply = { role: "assistant", content, ...this.#extra };
    if (calls.length) reply.tool_calls = calls.map(asked);
    const results = calls.map(({ id, result }) => ({ role: "tool", tool_call_id: id, content: result.value }));
    return [...this.messages, reply, ...results];
  }
}

/** A call as OpenAI's messages have it. Some providers refuse the turn without what they added to the call. */
function asked({ id, type, name, text, extra }) {
  const [called, words] = [name.join(""), text.join("")];
  const body = type === "custom" ? { name: called, input: words } : { name: called, arguments: words };
  return { id, type, [type]: body, ...extra };
}
