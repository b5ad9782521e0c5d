/** The types of applet/shared/alignment.js. */

/** The eyes' centres as fractions of the square's side, [x, y], the picture's left one first. */
export const EYES: [number, number][];
