/**
 * Where the face is in the picture: a square frame, or the two eyes, moved by pointer and by keyboard. Places are in
 * pixels of the picture; the elements lie over it in percent, so that they hold at every size of the window.
 */

import { EYES } from "../shared/alignment.js";

const SMALLEST_SIDE = 16;

/** A square {left, top, side} kept inside the picture, on whole pixels. */
export function fitSquare({ left, top, side }, { width, height }) {
  const fitted = Math.round(Math.min(Math.max(side, Math.min(SMALLEST_SIDE, width, height)), width, height));
  const clamp = (value, limit) => Math.round(Math.min(Math.max(value, 0), limit - fitted));
  return { left: clamp(left, width), top: clamp(top, height), side: fitted };
}

/** Resized about its middle. */
export function resizeSquare({ left, top, side }, wanted, picture) {
  const fitted = fitSquare({ left: 0, top: 0, side: wanted }, picture).side;
  const by = (side - fitted) / 2;
  return fitSquare({ left: left + by, top: top + by, side: fitted }, picture);
}

/** Where a face that fills the square has its eyes, in pixels of the picture. */
export function placeEyes({ left, top, side }) {
  return EYES.map(([x, y]) => [left + x * side, top + y * side]);
}

/** Lay the frame's element over its square. */
export function showSquare(element, { left, top, side }, { width, height }) {
  place(element, left / width, top / height);
  element.style.width = percent(side / width);
  element.style.height = percent(side / height);
}

/** Lay the ring of an eye, or a mark in the frame, with its middle on a point given in shares of the parent. */
export function place(element, x, y) {
  element.style.left = percent(x);
  element.style.top = percent(y);
}

function percent(share) {
  return `${100 * share}%`;
}

/**
 * Let `element` be dragged, and moved by the arrow keys (with shift ten times as far): `get()` gives its place [x, y]
 * in pixels of the picture, `set(x, y)` takes another. `grow(steps)` is called on + and −. `getScale()` gives the
 * picture's pixels in one of the screen.
 */
export function makeMovable(element, { getScale, get, set, grow = () => {} }) {
  element.addEventListener("pointerdown", (down) => {
    if (down.button !== 0) return;
    element.setPointerCapture(down.pointerId);
    const [x, y] = get();
    const drag = (event) => {
      // From where it began: places are whole pixels, and many small moves would each be rounded away.
      set(x + (event.clientX - down.clientX) * getScale(), y + (event.clientY - down.clientY) * getScale());
    };
    const stop = () => element.removeEventListener("pointermove", drag);
    element.addEventListener("pointermove", drag);
    element.addEventListener("lostpointercapture", stop, { once: true });
  });
  const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const sizes = { "+": 1, "=": 1, "-": -1, "−": -1 };
  element.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const direction = directions[event.key];
    if (direction) {
      const step = Math.max(1, getScale()) * (event.shiftKey ? 10 : 1); // one that is seen, and at least a pixel
      const [x, y] = get();
      set(x + direction[0] * step, y + direction[1] * step);
    } else if (sizes[event.key]) {
      grow(sizes[event.key]);
    } else {
      return;
    }
    event.preventDefault();
  });
}
