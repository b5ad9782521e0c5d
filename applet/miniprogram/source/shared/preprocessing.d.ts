/**
 * The types of applet/shared/preprocessing.js, which `npm run build` puts beside this file's place: the page and the
 * mini-program run the same code, and tests hold it equal to training's.
 */

/** 4 bytes a pixel (red, green, blue, unused), row by row. */
export interface Picture {
  width: number;
  height: number;
  data: Uint8Array | Uint8ClampedArray;
}

/** In whole pixels of a picture. */
export interface Square {
  left: number;
  top: number;
  side: number;
}

/** 3 bytes a pixel. */
export interface Face {
  side: number;
  data: Uint8Array;
}

/** The field `input` of export.json. */
export interface NetworkInput {
  shape: number[];
  scale: number;
  offset: number;
}

export const RESIZE: string;
export function findSquare(width: number, height: number, fraction: number): Square;
export function cropFace(picture: Picture, square: Square, resolution: number): Face;
export function toInput(face: Face, input: NetworkInput): Float32Array;
