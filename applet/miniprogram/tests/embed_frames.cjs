/**
 * node embed_frames.cjs FOLDER COUNT WIDTH HEIGHT: the vectors of FOLDER/0.rgba and on, as JSON.
 *
 * build/ computes them, with ONNX Runtime in the place of WeChat's inference and FOLDER as the operator's web server.
 */
const fs = require('node:fs');
const path = require('node:path');
const ort = require('onnxruntime-node');
const { Phone } = require('./phone');

const [folder, count, width, height] = process.argv.slice(2).map((word, at) => (at ? Number(word) : word));
const MODELS = 'https://models.test';

const network = {
  answer(url) {
    const file = path.join(folder, url.slice(MODELS.length));
    return { status: 200, body: file.endsWith('.json') ? JSON.parse(fs.readFileSync(file, 'utf8')) : fs.readFileSync(file) };
  },
};

/** ONNX Runtime with the names, shapes and buffers that wx.createInferenceSession takes and gives. */
function createSession(phone) {
  return ({ model }) => {
    const loading = ort.InferenceSession.create(phone.files.get(model));
    return {
      onLoad: (call) => loading.then(call),
      onError: (call) => loading.catch(call),
      destroy: () => undefined,
      async run(tensors) {
        const feeds = {};
        for (const [name, { type, data, shape }] of Object.entries(tensors)) {
          feeds[name] = new ort.Tensor(type, new Float32Array(data), shape);
        }
        const answer = await (await loading).run(feeds);
        return Object.fromEntries(
          Object.entries(answer).map(([name, { type, data, dims }]) => [
            name,
            { type, shape: dims, data: Float32Array.from(data).buffer },
          ]),
        );
      },
    };
  };
}

async function main() {
  const phone = new Phone({ network });
  global.wx = { ...phone.makeWx(), createInferenceSession: createSession(phone) };
  const build = path.join(__dirname, '..', 'build');
  Object.assign(require(path.join(build, 'settings')).SETTINGS, { models: MODELS });
  const { getModel } = require(path.join(build, 'model', 'current'));
  const { takeFrame } = require(path.join(build, 'face', 'camera'));
  const { computeVector } = require(path.join(build, 'face', 'vector'));
  const { FRACTIONS } = require(path.join(build, 'capture'));
  const { model } = await getModel(() => undefined);
  const vectors = [];
  for (let number = 0; number < count; number += 1) {
    phone.frame = { width, height, data: Uint8Array.from(fs.readFileSync(path.join(folder, `${number}.rgba`))) };
    const { vector } = await computeVector(model, await takeFrame(), FRACTIONS.camera);
    vectors.push(Array.from(vector));
  }
  console.log(JSON.stringify(vectors));
}

main();
