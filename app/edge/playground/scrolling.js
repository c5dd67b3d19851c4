// The answer is scrolled to its end as it grows, unless its reader has scrolled away from there.

import { $, atEnd, fromEnd } from "./page.js";

const box = $("scroller");

// Where the page scrolled to, or the reader, as of the last event. A slow browser sends the event of the page's own
// scrolling late, when the reader has done something else already. It is known by its position.
let scrolled = 0;

export function follow(following) {
  box.dataset.following = following ? "yes" : "no";
  $("latest").hidden = following;
}

/** Scroll to the end, if the reader follows. */
export function keepUp() {
  if (box.dataset.following === "no") return;
  box.scrollTop = box.scrollHeight;
  scrolled = box.scrollTop;
}

box.addEventListener("scroll", () => {
  const moved = box.scrollTop - scrolled;
  if (Math.abs(moved) < 1) return;
  scrolled += moved;
  // Up by any distance: keys and fingers move it by a few pixels a frame, which the next text would undo. A text that
  // became shorter moves it up as well, to the very end.
  if (moved < 0 && fromEnd(box) > 1) follow(false);
  else if (moved > 0 && atEnd(box)) follow(true);
});

// The wheel event comes before anything has moved, so text that comes in between does not scroll to the end again.
box.addEventListener("wheel", ({ deltaY }) => {
  if (deltaY < 0 && box.scrollTop > 0) follow(false);
}, { passive: true });

// Lines break elsewhere in another width. A reader who follows is still at the end then.
new ResizeObserver(keepUp).observe(box);

$("latest").addEventListener("click", () => {
  follow(true);
  keepUp();
  box.focus();
});
