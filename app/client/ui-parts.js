// Native events of chat-sse → the parts (`UIMessageChunk`) of the AI SDK's UI message stream, as the service's own
// dialect for it makes them: app/wire/ai_sdk.py says why each is what it is. A test compares the two.

import { isObject, Joined } from "./joined.js";

const FINISH = { stop: "stop", length: "length", content_filter: "content-filter", tool_calls: "tool-calls" };
const CUT = new Set(["length", "content_filter"]); // reasons after which a call may lack its end
const SURE = new Set(["stop", "tool_calls"]); // reasons by which the upstream says that its answer is whole
const OF_REASONING = /reason|think|thought|signature|encrypted/i;
const NOT_JSON = "The arguments of this tool call are not valid JSON.";

export class UIParts {
  #continues; #streamId = "";
  #open = ""; #parts = 0; // the kind of the text part that is open, and how many there were
  #calls = new Map(); #waiting = null; // the call whose name may still grow, which has not started therefore
  #sources = 0; #urls = new Set(); // of the citations that were sent
  #reasoning = new Joined(); // what the upstream says of its reasoning, and no part has said yet
  #extra = new Joined(); // other fields of the delta
  #more = new Map(); // fields of the chunk and of the choice
  #audio = [];

  /** An answer that *continues* the page's last message names no id, of which the SDK would make a second message. */
  constructor(continues = false) {
    this.#continues = continues;
  }

  /** Return the parts for *events*, which follow those before. Neighbouring texts of one kind are one part. */
  of(events) {
    const found = [];
    let [kind, texts] = ["", []];
    const flush = () => {
      if (texts.length) found.push(...this.#text(kind, texts.join("")));
      texts = [];
    };
    for (const { type, data } of events) {
      const text = type === "delta" || type === "refusal" || type === "reasoning";
      const now = text ? `${type} ${data.field ?? ""}` : "";
      if (now !== kind) flush();
      kind = now;
      if (text) texts.push(data.content);
      else found.push(...this.#other(type, data));
    }
    flush();
    return found;
  }

  #other(type, data) {
    switch (type) {
      case "start":
        this.#streamId = data.stream_id;
        return [{ type: "start", ...(!this.#continues && { messageId: data.stream_id }) }, { type: "start-step" }];
      case "tool_call": return this.#piece(data);
      case "annotation": return this.#notes(data);
      case "media": return [...this.#close(), ...this.#file(data)];
      case "extra": return this.#note(data);
      case "done": return this.#done(data);
      case "error": return this.#broken(data.usage, { type: "error", errorText: data.error.message }, "error");
      default: return []; // log probabilities, and what a later version of the service may send
    }
  }

  #done({ finish_reason: reason, usage, model }) {
    if (reason === "cancelled") return this.#broken(usage, { type: "abort" });
    const whole = [...this.#close(), ...this.#leftovers(), ...this.#inputs(reason)];
    const extra = Object.fromEntries([...this.#more].map(([place, fields]) => [place, Object.fromEntries(fields)]));
    const messageMetadata = { usage, ...given("model", model), ...given("extra", extra) };
    const finish = { type: "finish", finishReason: FINISH[reason] ?? "other", messageMetadata };
    return [...whole, { type: "finish-step" }, finish];
  }

  /** What waited for the end, the usage, if there is a message for it, and the end: *why* it broke off. */
  #broken(usage, why, finishReason) {
    const cost = usage && this.#streamId ? [{ type: "message-metadata", messageMetadata: { usage } }] : [];
    const finish = { type: "finish", ...given("finishReason", finishReason) };
    return [...this.#close(), ...this.#leftovers(), ...cost, why, finish];
  }

  #text(kind, delta) {
    const [type, field] = kind.split(" ");
    const name = type === "reasoning" ? "reasoning" : "text";
    const opening = [];
    if (kind !== this.#open) {
      opening.push(...this.#close());
      this.#open = kind;
      this.#parts++;
      const own = { ...given("reasoning_field", field), ...(type === "refusal" && { refusal: true }) };
      opening.push({ type: `${name}-start`, id: `${this.#parts}`, ...metadata(own) });
    }
    return [...opening, { type: `${name}-delta`, id: `${this.#parts}`, delta }];
  }

  /** Close the part that is open, or start the call whose name is complete now. */
  #close() {
    if (this.#waiting) return this.#start(this.#waiting);
    if (!this.#open) return [];
    const [type, field] = this.#open.split(" ");
    this.#open = "";
    const id = `${this.#parts}`;
    if (type !== "reasoning") return [{ type: "text-end", id }];
    return [{ type: "reasoning-end", id, ...this.#ofReasoning(field) }];
  }

  /** What the upstream said of its reasoning since the last part of that. */
  #ofReasoning(field) {
    const found = this.#reasoning.value;
    this.#reasoning = new Joined();
    return isEmpty(found) ? {} : metadata({ ...given("reasoning_field", field), ...found });
  }

  #piece({ index, id, name, arguments: more, type = "function", extra }) {
    let call = this.#calls.get(index);
    if (!call) this.#calls.set(index, (call = { index, id: "", name: "", arguments: "", extra: new Joined() }));
    const others = this.#waiting === call ? [] : this.#close();
    const started = call.name && this.#waiting !== call;
    Object.assign(call, { id: call.id || id, name: call.name + (name ?? ""), arguments: call.arguments + more, type });
    if (extra) call.extra.add(extra);
    if (started) return [...others, ...inputDelta(call, more)];
    if (!call.name) return others;
    this.#waiting = call;
    return [...others, ...(call.arguments ? this.#start(call) : [])];
  }

  #start(call) {
    this.#waiting = null;
    call.id ||= `call_${this.#streamId}_${call.index}`;
    const encoding = call.type === "custom" && { inputEncoding: "text" };
    return [{ type: "tool-input-start", ...about(call), ...encoding }, ...inputDelta(call, call.arguments)];
  }

  /** The calls' arguments as a whole, after which the page runs the tools; of an answer that was cut, none. */
  #inputs(reason) {
    return CUT.has(reason) ? [] : [...this.#calls.values()].flatMap((call) => this.#input(call, SURE.has(reason)));
  }

  #input(call, sure) {
    const started = call.name ? [] : this.#start(call);
    const called = about(call);
    if (call.type === "custom") return [...started, { type: "tool-input-available", ...called, input: call.arguments }];
    try {
      const input = JSON.parse(call.arguments.trim() || (sure ? "{}" : ""));
      return [...started, { type: "tool-input-available", ...called, input }];
    } catch {
      return [...started, { type: "tool-input-error", ...called, input: call.arguments, errorText: NOT_JSON }];
    }
  }

  /** The sources. A text that is being written goes on after them. */
  #notes({ annotations, citations = [], search_results: results = [] }) {
    const found = annotations.map((note) => this.#source(note));
    const titles = new Map(results.filter((result) => string(result, "url")).map((result) => [result.url, result]));
    for (const url of [...citations.filter((url) => typeof url === "string"), ...titles.keys()]) {
      if (this.#urls.has(url)) continue;
      this.#urls.add(url);
      found.push(this.#sourceUrl(url, string(titles.get(url), "title"), given("search_result", titles.get(url))));
    }
    return found;
  }

  #source(note) {
    const kind = string(note, "type");
    const facts = kind && isObject(note[kind]) ? note[kind] : note; // OpenAI's Responses have no inner object
    const url = string(facts, "url");
    if (url) return this.#sourceUrl(url, string(facts, "title"), { annotation: note });
    this.#sources++;
    const name = string(facts, "filename") || string(facts, "title");
    if (!name) return { type: "data-annotation", data: note };
    const place = { sourceId: `${this.#sources}`, mediaType: "application/octet-stream" };
    return { type: "source-document", ...place, title: name, filename: name, ...metadata({ annotation: note }) };
  }

  #sourceUrl(url, title, own) {
    return { type: "source-url", sourceId: `${++this.#sources}`, url, ...given("title", title), ...metadata(own) };
  }

  /** A file. A sound comes in pieces, and is one file at the answer's end. */
  #file(media) {
    if (media.type !== "audio") {
      return [{ type: "file", url: media.url, mediaType: media.media_type, ...metadata(given("field", media.field)) }];
    }
    this.#audio.push(media);
    return [];
  }

  #note({ delta = {}, ...places }) {
    for (const [place, fields] of Object.entries(places)) {
      if (!this.#more.has(place)) this.#more.set(place, new Map());
      for (const [name, value] of Object.entries(fields)) this.#more.get(place).set(name, value);
    }
    for (const [name, value] of Object.entries(delta)) {
      (OF_REASONING.test(name) ? this.#reasoning : this.#extra).add({ [name]: value });
    }
    return [];
  }

  /** What waited for the answer's end. What belongs to reasoning of which there is no text has a part. */
  #leftovers() {
    const found = [];
    const reasoning = this.#ofReasoning("");
    if (!isEmpty(reasoning)) {
      const id = `${++this.#parts}`;
      found.push({ type: "reasoning-start", id }, { type: "reasoning-end", id, ...reasoning });
    }
    if (this.#audio.length) found.push(...this.#sound());
    const data = this.#extra.value;
    if (!isEmpty(data)) found.push({ type: "data-extra", data });
    return found;
  }

  /** The sound whose pieces came, with its transcript, which is the message's if it came alone. */
  #sound() {
    const said = new Joined();
    for (const { extra = {} } of this.#audio) {
      for (const name of ["id", "transcript"]) if (name in extra) said.add({ [name]: extra[name] });
    }
    const known = this.#audio.filter(({ url }) => url);
    if (known.length) {
      const own = metadata({ field: "audio", ...said.value });
      return [{ type: "file", url: soundUrl(known), mediaType: known[0].media_type, ...own }];
    }
    this.#more.set("audio", Object.entries(said.value));
    return [];
  }
}

/** One URL for the pieces of a sound: the last link, or the data of all. */
function soundUrl(pieces) {
  const links = pieces.filter(({ url }) => !url.startsWith("data:"));
  if (links.length) return links.at(-1).url;
  const [head] = pieces[0].url.split(",", 1);
  return `${head},${base64(pieces.map(({ url }) => url.slice(url.indexOf(",") + 1)))}`;
}

/** Pieces of base64, each of which may have padding of its own, as one. */
function base64(pieces) {
  if (pieces.some((piece) => piece.length % 4)) return pieces.join(""); // it was divided within a group of four
  try {
    return btoa(pieces.map(atob).join(""));
  } catch {
    return pieces.join("");
  }
}

const about = ({ id, name, type, extra }) => {
  const own = { ...extra.value, ...(type !== "function" && { type }) };
  return { toolCallId: id, toolName: name, ...metadata(own) };
};
const inputDelta = ({ id }, text) => (text ? [{ type: "tool-input-delta", toolCallId: id, inputTextDelta: text }] : []);
const metadata = (own) => (isEmpty(own) ? {} : { providerMetadata: { "chat-sse": own } });
const string = (value, name) => (isObject(value) && typeof value[name] === "string" ? value[name] : "");
const isEmpty = (value) => !value || (typeof value === "object" && !Object.keys(value).length);
const given = (name, value) => (isEmpty(value) ? {} : { [name]: value });
