/**
 * From a picture's pixels to a network's input, bit for bit what training did. No DOM: the page, the mini-program and
 * Node run this same file. The definition is ffem_jax/data/preprocessing.py; a test holds both equal.
 *
 * A picture is {width, height, data}: data holds 4 bytes a pixel (red, green, blue, unused), row by row, as a canvas
 * gives them. A face is {side, data}: 3 bytes a pixel.
 */

/** What export.json calls the resize below. */
export const RESIZE = "pillow_bilinear";

const FIXED_POINT = 1 << 22; // Pillow's: 32 bits less 8 for the byte and 2 to spare

/** The centred square of `fraction` times the shorter side, in whole pixels: {left, top, side}. */
export function findSquare(width, height, fraction) {
  const side = Math.max(1, roundHalfToEven(fraction * Math.min(width, height)));
  return { left: Math.floor((width - side) / 2), top: Math.floor((height - side) / 2), side };
}

/** Python's round(): of two whole numbers equally near, the even one. */
function roundHalfToEven(value) {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest === 0.5) return below % 2 === 0 ? below : below + 1;
  return rest < 0.5 ? below : below + 1;
}

/**
 * The square of `picture`, resized to `resolution` pixels a side: {side, data}.
 *
 * Pillow's bilinear filter: a triangle as wide as two input pixels or, when reducing, two output pixels. Pixels outside
 * the square have no say. Throws RangeError for a square that is not inside the picture.
 */
export function cropFace(picture, square, resolution) {
  const { left, top, side } = square;
  const inside = left >= 0 && top >= 0 && side >= 1 && left + side <= picture.width && top + side <= picture.height;
  if (!inside || ![left, top, side].every(Number.isInteger)) {
    const where = `${left}, ${top}, ${side}`;
    throw new RangeError(`the square ${where} is not inside ${picture.width} x ${picture.height} pixels`);
  }
  const first = 4 * (top * picture.width + left);
  const source = { data: picture.data, first, pixelStep: 4, rowStep: 4 * picture.width };
  if (side === resolution) return { side, data: copySquare(source, side) };
  const taps = makeTaps(side, resolution);
  const wide = resampleRows(source, side, taps);
  // The second pass is the first one with rows and columns exchanged, and exchanges them back.
  const turned = { data: wide, first: 0, pixelStep: 3, rowStep: 3 * side };
  return { side: resolution, data: resampleRows(turned, resolution, taps) };
}

function copySquare({ data, first, pixelStep, rowStep }, side) {
  const copy = new Uint8Array(3 * side * side);
  for (let row = 0, at = 0; row < side; row++) {
    for (let column = 0; column < side; column++, at += 3) {
      const from = first + row * rowStep + column * pixelStep;
      copy[at] = data[from];
      copy[at + 1] = data[from + 1];
      copy[at + 2] = data[from + 2];
    }
  }
  return copy;
}

/** For each output pixel the first input pixel it takes and the weights, in fixed point: {start, weights} a pixel. */
function makeTaps(inputs, outputs) {
  const scale = inputs / outputs;
  const reach = Math.max(scale, 1);
  return Array.from({ length: outputs }, (_, output) => {
    const centre = (output + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - reach + 0.5));
    const end = Math.min(inputs, Math.trunc(centre + reach + 0.5));
    const weights = [];
    for (let input = start; input < end; input++) {
      weights.push(Math.max(0, 1 - Math.abs((input - centre + 0.5) * (1 / reach))));
    }
    const sum = weights.reduce((a, b) => a + b, 0);
    return { start, weights: Int32Array.from(weights, (weight) => Math.trunc(0.5 + (weight / sum) * FIXED_POINT)) };
  });
}

/** Resample each of `rows` rows; the result lies column by column: 3 bytes at [output, row]. */
function resampleRows({ data, first, pixelStep, rowStep }, rows, taps) {
  const result = new Uint8Array(3 * taps.length * rows);
  for (let row = 0; row < rows; row++) {
    for (let output = 0; output < taps.length; output++) {
      const { start, weights } = taps[output];
      let red = FIXED_POINT / 2;
      let green = red;
      let blue = red;
      for (let tap = 0, at = first + row * rowStep + start * pixelStep; tap < weights.length; tap++, at += pixelStep) {
        red += data[at] * weights[tap];
        green += data[at + 1] * weights[tap];
        blue += data[at + 2] * weights[tap];
      }
      const to = 3 * (output * rows + row);
      result[to] = clipByte(red);
      result[to + 1] = clipByte(green);
      result[to + 2] = clipByte(blue);
    }
  }
  return result;
}

/** Out of fixed point into 0 to 255; below 2 to the 31, so that the shift is exact. */
function clipByte(sum) {
  return Math.min(255, sum >> 22);
}

/**
 * A face as the network's input: Float32Array of pixel * scale + offset.
 *
 * `input` is the field of that name in export.json: its shape says whether colours come last ([1, H, W, 3]) or first
 * ([1, 3, H, W]). Throws RangeError for a face of another size.
 */
export function toInput(face, input) {
  const area = face.side * face.side;
  const { coloursFirst, height, width } = readShape(input.shape);
  if (height !== face.side || width !== face.side) {
    throw new RangeError(`the network takes ${width} x ${height} pixels, the face has ${face.side} x ${face.side}`);
  }
  const values = new Float32Array(3 * area);
  for (let pixel = 0; pixel < area; pixel++) {
    for (let colour = 0; colour < 3; colour++) {
      const to = coloursFirst ? colour * area + pixel : 3 * pixel + colour;
      values[to] = face.data[3 * pixel + colour] * input.scale + input.offset;
    }
  }
  return values;
}

function readShape(shape) {
  const [batch, a, b, c] = shape;
  if (shape.length !== 4 || batch !== 1 || (a !== 3 && c !== 3)) {
    throw new RangeError(`the network's input has the shape ${shape}; it must be one colour picture`);
  }
  return c === 3 ? { coloursFirst: false, height: a, width: b } : { coloursFirst: true, height: b, width: c };
}
