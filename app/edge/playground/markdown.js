// An answer as rendered Markdown. marked reads it (https://marked.js.org; marked.esm.js is its package's file, with its
// license beside it). The elements are made here, one by one, so no text of an answer is ever taken for HTML.

import { getDefaults, Lexer } from "./marked.esm.js";
import { link, make, webAddress } from "./page.js";

const OPTIONS = { ...getDefaults(), breaks: true };
const SLICE = 4000; // characters that are read at once
const LONG = 10_000; // characters of a block that is read again no more, but goes on as another one
const ENDLESS = new Set(["code", "table"]); // which could not go on
const BUDGET = 8; // milliseconds of a frame
const DEEPEST = 12; // blocks within blocks; what is deeper is shown as it is written
const CHARACTERS = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };
const INLINE = { strong: "strong", em: "em", del: "del" };

/**
 * The last two blocks may change with the text that follows, as in "1. one\n\n2", so they are read again with it. Those
 * before are settled, and their elements stay. So the end of a long answer costs no more than that of a short one.
 */
export class Markdown {
  #element; #waiting = []; #open = ""; #blocks = []; #level = 1; #links = {};

  constructor(element) {
    this.#element = element;
    element.replaceChildren();
  }

  add(text) {
    this.#waiting.push(text.replaceAll("\r", ""));
  }

  /** Show what has come, as far as there is time in this frame. Returns whether something is left to be shown. */
  flush() {
    const text = this.#waiting.join("");
    const until = performance.now() + BUDGET;
    let at = 0;
    while (at < text.length && (!at || performance.now() < until)) {
      this.#open += text.slice(at, (at += SLICE));
      this.#read();
    }
    this.#waiting = at < text.length ? [text.slice(at)] : [];
    return at < text.length;
  }

  #read() {
    this.#show();
    if (this.#open.length < LONG || ENDLESS.has(this.#blocks.at(-1)?.token.type)) {
      return this.#settle(this.#blocks.length - 2);
    }
    const end = this.#open.search(/\n(?=\S.*$)/) + 1 || this.#open.length; // before the last line, unless that is indented
    const rest = this.#open.slice(end);
    this.#open = this.#open.slice(0, end);
    this.#show();
    this.#settle(this.#blocks.length);
    this.#open = rest;
    this.#show();
  }

  /** Show the open text. Blocks that are as before keep their elements. */
  #show() {
    const before = this.#blocks;
    let level = this.#level;
    this.#blocks = this.#tokens().map((token, n) => {
      if (token.type === "heading") level = token.level = Math.min(token.depth + 1, level + 1, 6); // leaves out none
      const old = before[n];
      const node = (old && unchanged(old, token)) ?? block(token);
      if (!old) this.#element.append(node);
      else if (node !== old.node) old.node.replaceWith(node);
      return { token, level, node };
    });
    for (const { node } of before.slice(this.#blocks.length)) node.remove();
  }

  #settle(count) {
    for (const { token, level } of this.#blocks.splice(0, Math.max(0, count))) {
      if (token.type === "def") this.#links[token.tag] ??= { href: token.href, title: token.title };
      this.#open = this.#open.slice(token.size);
      this.#level = level;
    }
  }

  /** The open text's blocks. The `size` of each includes the empty lines after it. */
  #tokens() {
    const lexer = new Lexer(OPTIONS);
    Object.assign(lexer.tokens.links, this.#links);
    let found;
    try {
      found = lexer.lex(this.#open);
    } catch {
      found = [{ type: "html", raw: this.#open, text: this.#open }]; // nested too deep to be read
    }
    const blocks = [];
    let before = 0;
    for (const token of found) {
      if (token.type !== "space") blocks.push({ ...token, size: token.raw.length + before });
      else if (blocks.length) blocks.at(-1).size += token.raw.length;
      else before = token.raw.length;
      if (blocks.length) before = 0;
    }
    return blocks;
  }
}

/** The element of a block that shows the token as well. A code block grows: what it has already stays. */
function unchanged({ token: old, node }, token) {
  if (old.raw === token.raw && old.level === token.level) return node;
  if (old.type !== "code" || token.type !== "code" || old.lang !== token.lang || !token.text.startsWith(old.text)) return null;
  node.firstChild.append(token.text.slice(old.text.length));
  return node;
}

const raw = (token) => make("p", { className: "raw", dir: "auto" }, token.raw);

function block(token, depth = 0) {
  if (depth > DEEPEST) return raw(token);
  const blocks = ({ tokens }) => tokens.filter(({ type }) => type !== "space").map((one) => block(one, depth + 1));
  const words = { dir: "auto" };
  switch (token.type) {
    case "heading":
      return make(`h${token.level ?? 6}`, words, ...inline(token.tokens));
    case "paragraph":
      return make("p", words, ...inline(token.tokens));
    case "text": // of a list's item
      return make("span", words, ...inline(token.tokens ?? [token]));
    case "checkbox":
      return document.createTextNode(token.checked ? "☑ " : "☐ ");
    case "code":
      return make("pre", { tabIndex: 0 }, make("code", { title: token.lang ?? "" }, token.text));
    case "blockquote":
      return make("blockquote", {}, ...blocks(token));
    case "hr":
      return make("hr");
    case "list": {
      const list = make(token.ordered ? "ol" : "ul");
      if (token.ordered && token.start !== 1) list.start = token.start;
      list.append(...token.items.map((item) => make("li", {}, ...blocks(item))));
      return list;
    }
    case "table":
      return make("div", { className: "table", tabIndex: 0 }, table(token));
    case "def":
      return document.createTextNode("");
    default: // HTML
      return raw(token);
  }
}

function table({ header, rows }) {
  const cell = (name, { tokens, align }) => {
    const made = make(tokens.length ? name : "td", { dir: "auto" }, ...inline(tokens));
    if (align) made.style.textAlign = align;
    return made;
  };
  const row = (name, cells) => make("tr", {}, ...cells.map((one) => cell(name, one)));
  return make("table", {}, make("thead", {}, row("th", header)), make("tbody", {}, ...rows.map((cells) => row("td", cells))));
}

function inline(tokens, depth = 0) {
  if (depth > DEEPEST) return tokens.map((token) => token.raw);
  return tokens.map((token) => {
    const inside = () => inline(token.tokens, depth + 1);
    if (INLINE[token.type]) return make(INLINE[token.type], {}, ...inside());
    if (token.type === "br") return make("br");
    if (token.type === "codespan") return make("code", {}, token.text);
    if (token.type === "image") return picture(token);
    if (token.type === "text" && token.tokens) return make("span", {}, ...inside());
    if (token.type === "text") return decoded(token.text);
    if (token.type === "escape") return token.text;
    const href = token.type === "link" && webAddress(token.href);
    if (!href) return token.type === "link" ? make("span", { title: token.href }, ...inside()) : token.raw;
    const made = link(href, "");
    made.append(...inside());
    return made;
  });
}

/** An image that is in the text itself is shown; any other is a link, since loading it would tell who reads this. */
function picture({ href, text, raw: written }) {
  if (href.startsWith("data:image/")) return make("img", { src: href, alt: text || "An image of the answer" });
  const address = webAddress(href);
  return address ? link(address, `image: ${text || address}`) : written;
}

/** Text with its character references put in. */
const decoded = (text) =>
  text.replace(/&(?:#(\d{1,7})|#x([\da-f]{1,6})|(\w+));/gi, (written, decimal, hex, name) => {
    if (name) return CHARACTERS[name] ?? written;
    const code = decimal ? Number(decimal) : parseInt(hex, 16);
    return code && code <= 0x10ffff ? String.fromCodePoint(code) : "\ufffd";
  });
