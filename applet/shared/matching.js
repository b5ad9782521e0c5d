/**
 * Vectors of faces: unit length, distance (the paper's Eq. 7), and what goes over the wire. No DOM. The same sums as
 * ffem_jax/metrics/matching.py, where the server takes its from; a test holds both equal.
 */

/** A vector scaled to length 1. Throws RangeError for one without a direction: empty, all zero, or not finite. */
export function normalizeVector(vector) {
  const length = Math.hypot(...vector);
  if (!(length > 0) || !Number.isFinite(length)) {
    throw new RangeError("the network gave no usable vector: its length is zero or not a number");
  }
  return Array.from(vector, (value) => value / length);
}

/** Half the Euclidean distance of unit-length vectors: 0 in the same direction, 1 in opposite ones. */
export function computeDistance(one, other) {
  if (one.length !== other.length) throw new RangeError(`vectors of ${one.length} and ${other.length} numbers`);
  const [a, b] = [normalizeVector(one), normalizeVector(other)];
  return Math.hypot(...a.map((value, index) => value - b[index])) / 2;
}

/**
 * The body of a request: JSON of the model's id and the vector, with a name to enrol, and nothing else.
 *
 * Nine significant digits give back each float32 exactly; a double's seventeen would only lengthen the request.
 */
export function makeBody(modelId, vector, name) {
  const numbers = Array.from(vector, (value) => Number(value.toPrecision(9)));
  // A field that is undefined is left out.
  return JSON.stringify({ model_id: modelId, vector: numbers, name });
}
