// A teacher's vectors by npm's @vladmandic/face-api (dlib's ResNet, MIT licence), as a file for teacher=vectors.
//
//   npm install @vladmandic/face-api@1.7.15 @tensorflow/tfjs @tensorflow/tfjs-backend-wasm
//   python -m benchmarks.peers.face_api LFW_FOLDER teacher.npz
//
// Reads one JSON line per image on standard input, {"path", "size", "pixels"}: RGB bytes in base64; answers with
// {"path", "vector"}. benchmarks/peers/face_api.py cuts the faces and writes the file. Nothing of the network is here.
import { createRequire } from "node:module";
import readline from "node:readline";

const require = createRequire(`${process.cwd()}/`);
const tf = require("@tensorflow/tfjs");
const wasm = require("@tensorflow/tfjs-backend-wasm");
const path = require("node:path");
const faceapi = require("@vladmandic/face-api/dist/face-api.node-wasm.js");

wasm.setWasmPaths(`${path.dirname(require.resolve("@tensorflow/tfjs-backend-wasm/package.json"))}/dist/`);
await tf.setBackend("wasm");
await tf.ready();
const folder = path.dirname(require.resolve("@vladmandic/face-api/package.json"));
await faceapi.nets.faceRecognitionNet.loadFromDisk(`${folder}/model`);

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { path: name, size, pixels } = JSON.parse(line);
  const image = tf.tensor3d(new Int32Array(Buffer.from(pixels, "base64")), [size, size, 3], "int32");
  const vector = await faceapi.computeFaceDescriptor(image);
  image.dispose();
  console.log(JSON.stringify({ path: name, vector: Array.from(vector) }));
}
