/** export.json, as `ffem export --format onnx` writes it: what the mini-program needs of it, checked. */
import { Failure } from '../failure';
import { RESIZE } from '../shared/preprocessing';

export interface ModelFile {
  name: string;
  bytes: number;
  /** 64 hexadecimal digits. */
  sha256: string;
}

export interface ModelDescription {
  version: 1;
  /** Names the trained weights; vectors of two ids never meet. */
  model_id: string;
  network: string;
  dtype: string;
  files: ModelFile[];
  /** value = pixel * scale + offset; shape [1, 3, height, width]. */
  input: { name: string; shape: number[]; dtype: 'float32'; scale: number; offset: number };
  /** How training resized the square around a face, and to how many pixels a side. */
  crop: { resize: string; resolution: number };
  output: { name: string; length: number };
}

/** The one file of an ONNX export. */
export function getModelFile(description: ModelDescription): ModelFile {
  return description.files[0] as ModelFile;
}

/** Check the JSON value of export.json. Throws a Failure that names the first field that does not fit. */
export function parseDescription(value: unknown): ModelDescription {
  const all = asObject(value, 'export.json');
  demand(all.version === 1, 'version', all.version);
  demand(all.format === 'onnx', 'format', all.format);
  demand(isMatch(all.model_id, /^[0-9a-f]{16}$/), 'model_id', all.model_id);
  demand(Array.isArray(all.files) && all.files.length === 1, 'files', all.files);
  const file = asObject((all.files as unknown[])[0], 'files');
  // The name becomes part of an address, so no other folder can be meant.
  demand(isMatch(file.name, /^[\w-][\w.-]*\.onnx$/), 'files.name', file.name);
  demand(isCount(file.bytes), 'files.bytes', file.bytes);
  demand(isMatch(file.sha256, /^[0-9a-f]{64}$/), 'files.sha256', file.sha256);
  const input = asObject(all.input, 'input');
  demand(typeof input.name === 'string', 'input.name', input.name);
  demand(input.dtype === 'float32', 'input.dtype', input.dtype);
  demand(isFiniteNumber(input.scale), 'input.scale', input.scale);
  demand(isFiniteNumber(input.offset), 'input.offset', input.offset);
  const crop = asObject(all.crop, 'crop');
  demand(crop.resize === RESIZE, 'crop.resize', crop.resize);
  // The viewfinder is square; older exports do not say how others are fitted.
  demand(crop.fit === undefined || crop.fit === 'crop', 'crop.fit', crop.fit);
  demand(isCount(crop.resolution), 'crop.resolution', crop.resolution);
  const shape = [1, 3, crop.resolution, crop.resolution];
  demand(JSON.stringify(input.shape) === JSON.stringify(shape), 'input.shape', input.shape);
  const output = asObject(all.output, 'output');
  demand(typeof output.name === 'string', 'output.name', output.name);
  demand(isCount(output.length), 'output.length', output.length);
  return value as ModelDescription;
}

function asObject(value: unknown, field: string): Record<string, unknown> {
  demand(typeof value === 'object' && value !== null && !Array.isArray(value), field, value);
  return value as Record<string, unknown>;
}

function demand(fits: boolean, field: string, value: unknown): void {
  if (!fits) throw new Failure('bad_description', `${field}: ${JSON.stringify(value)}`);
}

function isMatch(value: unknown, pattern: RegExp): boolean {
  return typeof value === 'string' && pattern.test(value);
}

function isFiniteNumber(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value);
}

function isCount(value: unknown): value is number {
  return isFiniteNumber(value) && Number.isInteger(value) && value > 0;
}
