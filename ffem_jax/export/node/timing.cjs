// Loads models and times calls of them with the TensorFlow.js it is given; the same in Node and in a page.
//
// A call takes pixels from JavaScript and gives the vector back to it: tensor, network, read. Models are timed one call
// each in turn; the caller holds the turns together.
"use strict";

function makeTimer(tf, now = () => performance.now()) {
  const models = new Map();

  // The same values every time, in the range that the model takes.
  function makePixels(shape, low, high) {
    let state = 1;
    return Float32Array.from({ length: shape.reduce((product, size) => product * size, 1) }, () => {
      state = (state * 48271) % 2147483647;
      return low + ((high - low) * state) / 2147483647;
    });
  }

  function call(model) {
    const started = now();
    const vector = tf.tidy(() => model.embed(tf.tensor(model.pixels, model.shape)));
    const values = vector.dataSync();
    const milliseconds = now() - started;
    vector.dispose();
    return { milliseconds, values };
  }

  return {
    // load(): a function of a tensor [1, H, W, 3] that gives the vector's. Raises where the vector is no vector.
    async add({ name, shape, low, high }, load) {
      const before = tf.memory().numBytes;
      const started = now();
      const embed = await load();
      const loadMilliseconds = now() - started;
      const weightBytes = tf.memory().numBytes - before;
      const model = { embed, shape, pixels: makePixels(shape, low, high) };
      const first = call(model);
      if (!first.values.every(Number.isFinite) || first.values.every((value) => value === first.values[0])) {
        throw new Error(`${name}: the vector is not finite or all the same`);
      }
      const held = tf.memory().numBytes;
      const profile = await tf.profile(() => tf.tidy(() => void embed(tf.tensor(model.pixels, model.shape))));
      models.set(name, model);
      return {
        load_ms: loadMilliseconds,
        first_call_ms: first.milliseconds,
        weight_tensor_bytes: weightBytes,
        peak_tensor_bytes: weightBytes + profile.peakBytes - held,
        vector_length: first.values.length,
      };
    },

    // One call of a model that has just been called, so that its weights are where its last call left them.
    time(name) {
      const model = models.get(name);
      call(model);
      return call(model).milliseconds;
    },

    remove(name) {
      models.delete(name);
    },
  };
}

if (typeof module !== "undefined") module.exports = { makeTimer };
