/**
 * A photograph turned and scaled by the eyes, as `ffem align` does it (ffem_jax/align/geometry.py; a test holds both
 * equal). No DOM. Points are [x, y] in pixels from the upper left corner, the middle of the first pixel at [0.5, 0.5].
 */

import { cropFace } from "./preprocessing.js";

/** The eyes' centres as fractions of the square's side, the picture's left one first. */
export const EYES = [
  [0.35, 0.408],
  [0.663, 0.408],
];

/** How the square lies in the photograph: pixel (x, y) of the square is (a x - b y + left, b x + a y + top) there. */
export function findSimilarity(eyes, side) {
  const [[leftX, leftY], [rightX, rightY]] = eyes;
  const [[leftThere, topThere], [rightThere, bottomThere]] = EYES.map(([x, y]) => [side * x, side * y]);
  const [across, down] = [rightThere - leftThere, bottomThere - topThere];
  const length = across * across + down * down;
  const [dx, dy] = [rightX - leftX, rightY - leftY];
  if (dx === 0 && dy === 0) throw new RangeError("both eyes lie in one place; alignment takes two");
  const a = (dx * across + dy * down) / length;
  const b = (dy * across - dx * down) / length;
  return { a, b, left: leftX - (a * leftThere - b * topThere), top: leftY - (b * leftThere + a * topThere) };
}

/** The square of `side` pixels in which the eyes of `picture` lie at EYES: {width, height, data}, black outside. */
export function alignFace(picture, eyes, side) {
  const { a, b, left, top } = findSimilarity(eyes, side);
  const samples = Math.max(1, Math.ceil(Math.hypot(a, b))); // along each pixel of the square
  const sampled = samplePicture(picture, { a: a / samples, b: b / samples, left, top }, samples * side);
  const face = cropFace(sampled, { left: 0, top: 0, side: sampled.width }, side);
  return addFourthByte(face);
}

/** Bilinear samples at the middles of the square's pixels, rounded down as Pillow does. */
function samplePicture(picture, { a, b, left, top }, side) {
  const { width, height, data } = picture;
  const sampled = { width: side, height: side, data: new Uint8Array(4 * side * side) };
  for (let row = 0, to = 0; row < side; row++) {
    for (let column = 0; column < side; column++, to += 4) {
      const x = a * (column + 0.5) - b * (row + 0.5) + left;
      const y = b * (column + 0.5) + a * (row + 0.5) + top;
      if (x < 0 || x >= width || y < 0 || y >= height) continue;
      const [column0, row0] = [Math.floor(x - 0.5), Math.floor(y - 0.5)];
      const [right, down] = [x - 0.5 - column0, y - 0.5 - row0];
      // Beyond the edge the nearest pixel is repeated.
      const [x0, x1] = [Math.max(column0, 0), Math.min(column0 + 1, width - 1)];
      const [y0, y1] = [Math.max(row0, 0), Math.min(row0 + 1, height - 1)];
      for (let colour = 0; colour < 3; colour++) {
        const at = (r, c) => data[4 * (r * width + c) + colour];
        const upper = at(y0, x0) + (at(y0, x1) - at(y0, x0)) * right;
        const lower = at(y1, x0) + (at(y1, x1) - at(y1, x0)) * right;
        sampled.data[to + colour] = Math.floor(upper + (lower - upper) * down);
      }
    }
  }
  return sampled;
}

function addFourthByte({ side, data }) {
  const wide = new Uint8ClampedArray(4 * side * side).fill(255);
  for (let pixel = 0; pixel < side * side; pixel++) wide.set(data.subarray(3 * pixel, 3 * pixel + 3), 4 * pixel);
  return { width: side, height: side, data: wide };
}
