/** The exported network in TensorFlow.js: a face in, a vector out, in this page. */

import { RESIZE, toInput } from "../shared/preprocessing.js";

/** The scripts of `npm run vendor` put TensorFlow.js here. */
const VENDOR = "vendor/";

/**
 * The network in `folder`, which `ffem export --format tfjs` wrote, warmed up: {exported, bytes, milliseconds, embed}.
 *
 * `embed(face)` gives {vector, milliseconds}; faces are `exported.crop.resolution` pixels a side. Throws an Error that
 * says what is missing and how it is made.
 */
export async function loadNetwork(folder) {
  const started = performance.now();
  const tf = globalThis.tf;
  if (!tf?.loadGraphModel || !tf.wasm) {
    throw new Error("TensorFlow.js is not beside this page: run `npm install` and `npm run vendor` in applet/web.");
  }
  const exported = await readDescription(`${folder}/export.json`);
  tf.wasm.setWasmPaths(VENDOR);
  // WebAssembly and not WebGL: its arithmetic is float32 on every phone, so a face has one vector everywhere.
  if (!(await tf.setBackend("wasm"))) throw new Error("this browser has no WebAssembly, which the network runs in.");
  const model = await tf.loadGraphModel(`${folder}/model.json`);
  const embed = async (face) => {
    const start = performance.now();
    const values = toInput(face, exported.input);
    const result = tf.tidy(() => model.predict(tf.tensor(values, exported.input.shape)));
    const vector = await result.data();
    result.dispose();
    if (vector.length !== exported.output.length) {
      throw new Error(`the network gave ${vector.length} numbers; export.json says ${exported.output.length}.`);
    }
    return { vector, milliseconds: performance.now() - start };
  };
  const side = exported.crop.resolution;
  await embed({ side, data: new Uint8Array(3 * side * side) }); // the first run compiles
  return { exported, bytes: exported.bytes, milliseconds: performance.now() - started, embed };
}

async function readDescription(address) {
  const response = await fetch(address).catch(() => undefined);
  if (!response?.ok) {
    throw new Error(`there is no ${address}: write one with \`ffem export TRIAL_DIR --format tfjs --out DIR\`.`);
  }
  const exported = await response.json();
  if (exported.version !== 1) throw new Error(`${address} is of version ${exported.version}; this page reads 1.`);
  if (exported.format !== "tfjs") throw new Error(`${address} is of a network for ${exported.format}, not tfjs.`);
  if (exported.crop.resize !== RESIZE) {
    throw new Error(`${address} asks for the resize ${exported.crop.resize}; this page has ${RESIZE}.`);
  }
  if ((exported.crop.fit ?? "crop") !== "crop") {
    throw new Error(
      `${address} is of faces fitted by data.fit=${exported.crop.fit}; this page cuts squares: train with data.fit=crop.`,
    );
  }
  return exported;
}
