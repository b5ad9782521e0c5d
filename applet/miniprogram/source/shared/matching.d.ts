/** The types of applet/shared/matching.js. */

/** A request's body: JSON of the model's id, the vector and, to enrol, a name. */
export function makeBody(modelId: string, vector: ArrayLike<number>, name?: string): string;
