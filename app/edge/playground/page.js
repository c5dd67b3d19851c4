// What the parts of the page share.

/** The element with an id. */
export const $ = (id) => document.getElementById(id);

/** A new element with these properties and children. */
export function make(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** Whether a button does nothing now. It is never `disabled`: that would take the focus from it. */
export const isOff = (id) => $(id).getAttribute("aria-disabled") === "true";
export const off = (id, is) => $(id).setAttribute("aria-disabled", is);

/** Have a screen reader say *words*. */
export const announce = (words) => ($("news").textContent = words);

export const fromEnd = (box) => box.scrollHeight - box.scrollTop - box.clientHeight;
export const atEnd = (box) => fromEnd(box) < 32;

/** A number of milliseconds, for people. */
export const time = (ms) => (ms < 9_995 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

/** An address as a link may have it, or "" for what is none of the web's. */
export function webAddress(text) {
  try {
    const url = new URL(text);
    return url.protocol === "https:" || url.protocol === "http:" ? url.href : "";
  } catch {
    return "";
  }
}

export const link = (href, words = href) =>
  make("a", { href, target: "_blank", rel: "noopener", textContent: words.slice(0, 200) });

/** Copy *text*, and say on the *button* whether that was done. */
export async function copy(button, text) {
  const done = await toClipboard(text);
  const label = (button.dataset.label ??= button.textContent);
  button.textContent = done ? "Copied" : "The browser did not copy it";
  announce(`${button.textContent}.`);
  setTimeout(() => (button.textContent = label), 2000);
}

async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Pages over plain http have no clipboard, but they may copy what is selected.
    const focused = document.activeElement;
    const field = document.body.appendChild(make("textarea", { value: text }));
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    focused.focus();
    return done;
  }
}
