// A TensorFlow.js graph model read from this machine's disk, as tf.loadGraphModel wants it.
"use strict";

const fs = require("node:fs");
const path = require("node:path");

function readArtifacts(modelFile) {
  const { modelTopology, weightsManifest, format, signature, userDefinedMetadata } = JSON.parse(
    fs.readFileSync(modelFile, "utf8"),
  );
  const files = weightsManifest.flatMap((group) => group.paths);
  const weights = Buffer.concat(files.map((file) => fs.readFileSync(path.join(path.dirname(modelFile), file))));
  return {
    modelTopology,
    format,
    signature,
    userDefinedMetadata,
    weightSpecs: weightsManifest.flatMap((group) => group.weights),
    weightData: weights.buffer.slice(weights.byteOffset, weights.byteOffset + weights.byteLength),
  };
}

module.exports = { readArtifacts };
