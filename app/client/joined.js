// Objects that come in pieces, put together as app/wire/joined.py does it.

// Members whose texts come in pieces. Any other text is whole.
const IN_PIECES = new Set(["text", "thinking", "summary", "signature", "data", "transcript"]);
// How many elements of a list are searched for the one that goes on; the newest ones.
const SEARCHED = 64;

export const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** One object, as far as its pieces have come. It is a Map inside, since a member may be called `__proto__`. */
export class Joined {
  #members = new Map();

  /** Add the next piece. */
  add(piece) {
    add(this.#members, piece);
  }

  /** The object, as JSON has it. */
  get value() {
    return plain(this.#members);
  }
}

function add(whole, piece) {
  for (const [name, value] of Object.entries(piece)) {
    const known = whole.get(name);
    if (Array.isArray(value)) {
      const items = Array.isArray(known) ? known : [];
      whole.set(name, items);
      for (const item of value) addItem(items, item);
    } else if (isObject(value)) {
      const inner = known instanceof Map ? known : new Map();
      whole.set(name, inner);
      add(inner, value);
    } else if (typeof value === "string" && IN_PIECES.has(name)) {
      const isRepeated = name === "signature" && known === value;
      if (!isRepeated) whole.set(name, typeof known === "string" ? known + value : value);
    } else if ((value !== null && value !== "") || !whole.has(name)) {
      whole.set(name, value);
    }
  }
}

function addItem(items, item) {
  if (!isObject(item)) return void items.push(item);
  let begun = items.slice(-SEARCHED).findLast((other) => continues(item, other));
  if (!begun) items.push((begun = new Map()));
  add(begun, item);
}

/** Whether *piece* belongs to the element that has *begun*. A block of Anthropic's thinking ends with its signature. */
function continues(piece, begun) {
  if (!(begun instanceof Map) || (begun.get("type") ?? null) !== (piece.type ?? null)) return false;
  if (begun.get("id") && piece.id && begun.get("id") !== piece.id) return false;
  if ("index" in piece || begun.has("index")) return (begun.get("index") ?? null) === (piece.index ?? null);
  return piece.type === "thinking" && !begun.get("signature");
}

function plain(member) {
  if (member instanceof Map) return Object.fromEntries([...member].map(([name, inner]) => [name, plain(inner)]));
  return Array.isArray(member) ? member.map(plain) : member;
}
