// Times models in Node with the wasm backend on one thread, on request: `node time_tfjs.cjs PACKAGES`.
//
// A request is a line of JSON on standard input, its answer a line on standard output:
//   {"load": {name, kind, model, output, shape, low, high}} -> what timing.cjs measures while loading
//   {"time": name} -> milliseconds of one call
//   {"describe": true} -> the runtime
// An answer {"error": ...} says what went wrong. It ends when its input does. PACKAGES: a folder with node_modules.
"use strict";

const path = require("node:path");
const readline = require("node:readline");
const { createRequire } = require("node:module");
const { readArtifacts } = require("./graph_model.cjs");
const { makeTimer } = require("./timing.cjs");

async function main(packages) {
  const load = createRequire(path.join(packages, "package.json"));
  const tf = load("@tensorflow/tfjs-core");
  const { loadGraphModel } = load("@tensorflow/tfjs-converter");
  const wasm = load("@tensorflow/tfjs-backend-wasm");
  const folder = path.dirname(load.resolve("@tensorflow/tfjs-backend-wasm/package.json"));
  wasm.setWasmPaths(path.join(folder, "dist") + path.sep);
  wasm.setThreadsCount(1);
  await tf.setBackend("wasm");
  const timer = makeTimer(tf);

  // How each kind of model is loaded.
  const kinds = {
    graph: async ({ model, output }) => {
      const graph = await loadGraphModel({ load: async () => readArtifacts(model) });
      return (pixels) => graph.execute(pixels, output ?? undefined);
    },
    face_api: async ({ model }) => {
      const faceapi = load("@vladmandic/face-api/dist/face-api.node-wasm.js");
      const network = new faceapi.FaceRecognitionNet();
      await network.loadFromDisk(model);
      return (pixels) => network.forwardInput(new faceapi.NetInput([pixels.squeeze([0])]));
    },
  };

  async function answer(request) {
    if (request.load) return timer.add(request.load, () => kinds[request.load.kind](request.load));
    if (request.time) return timer.time(request.time);
    return `tfjs ${tf.version_core} ${tf.getBackend()}, 1 thread, Node ${process.versions.node.split(".")[0]}`;
  }

  for await (const line of readline.createInterface({ input: process.stdin })) {
    let reply;
    try {
      reply = await answer(JSON.parse(line));
    } catch (error) {
      reply = { error: String((error && error.message) || error) };
    }
    process.stdout.write(`${JSON.stringify(reply)}\n`);
  }
}

main(process.argv[2]).catch((error) => {
  process.stdout.write(`${JSON.stringify({ error: String((error && error.message) || error) })}\n`);
  process.exitCode = 1;
});
