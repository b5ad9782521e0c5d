// Runs an exported graph model over a file of images, one at a time as a phone does:
//   node run_tfjs.cjs PACKAGES model.json IMAGES EMBEDDINGS count rows columns channels
// IMAGES and EMBEDDINGS are float32 in the machine's order. PACKAGES is a folder with node_modules. Prints the runtime.
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { createRequire } = require("node:module");

async function main([packages, modelFile, imagesFile, embeddingsFile, ...sizes]) {
  const load = createRequire(path.join(packages, "package.json"));
  const tf = load("@tensorflow/tfjs-core");
  const { loadGraphModel } = load("@tensorflow/tfjs-converter");
  const wasm = load("@tensorflow/tfjs-backend-wasm");
  const wasmFolder = path.dirname(load.resolve("@tensorflow/tfjs-backend-wasm/package.json"));
  wasm.setWasmPaths(path.join(wasmFolder, "dist") + path.sep);
  await tf.setBackend("wasm");

  const model = await loadGraphModel({ load: async () => readArtifacts(modelFile) });
  const [count, ...shape] = sizes.map(Number);
  const bytes = fs.readFileSync(imagesFile);
  const images = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  const length = shape.reduce((product, size) => product * size, 1);
  const embeddings = [];
  for (let index = 0; index < count; index++) {
    const pixels = images.slice(index * length, (index + 1) * length);
    const embedding = tf.tidy(() => model.predict(tf.tensor(pixels, [1, ...shape])));
    embeddings.push(Buffer.from((await embedding.data()).slice().buffer));
    embedding.dispose();
  }
  fs.writeFileSync(embeddingsFile, Buffer.concat(embeddings));
  console.log(`tfjs ${tf.version_core} ${tf.getBackend()}, node ${process.versions.node}`);
}

function readArtifacts(modelFile) {
  const { modelTopology, weightsManifest, format, signature } = JSON.parse(fs.readFileSync(modelFile, "utf8"));
  const files = weightsManifest.flatMap((group) => group.paths);
  const weights = Buffer.concat(files.map((file) => fs.readFileSync(path.join(path.dirname(modelFile), file))));
  return {
    modelTopology,
    format,
    signature,
    weightSpecs: weightsManifest.flatMap((group) => group.weights),
    weightData: weights.buffer.slice(weights.byteOffset, weights.byteOffset + weights.byteLength),
  };
}

main(process.argv.slice(2)).catch((error) => {
  console.error(String(error && error.message ? error.message : error));
  process.exit(1);
});
