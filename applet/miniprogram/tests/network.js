/** The operator's side for tests: the folder that `ffem export` wrote, and a server that answers as `ffem serve` does. */
const crypto = require('node:crypto');

const SERVER = 'https://faces.test';
const MODELS = 'https://models.test/ffem';
const MODEL_ID = '0123456789abcdef';
const THRESHOLD = 0.1;

const sha256 = (content) => crypto.createHash('sha256').update(content).digest('hex');

/** export.json of a model file, with `changes` laid over it. */
function makeDescription(content, changes = {}) {
  return {
    version: 1,
    model_id: MODEL_ID,
    trial_key: 'f'.repeat(16),
    network: 'FFEM-AM',
    format: 'onnx',
    dtype: 'float32',
    files: [{ name: 'model.onnx', bytes: content.length, sha256: sha256(content) }],
    bytes: content.length,
    cap_bytes: 10_000_000,
    fits_cap: true,
    input: { name: 'pixels', shape: [1, 3, 16, 16], dtype: 'float32', scale: 1 / 127.5, offset: -1 },
    crop: { fraction: 0.5, of: 'shorter_side', anchor: 'centre', resize: 'pillow_bilinear', resolution: 16 },
    output: { name: 'embedding', length: 12, normalized: false },
    thresholds: {},
    ...changes,
  };
}

class Network {
  constructor() {
    this.people = []; // {person_id, name, vectors}
    this.modelId = MODEL_ID;
    this.status = 0; // answered whatever is asked of the server, where it is not 0
    this.mayDelete = true;
    this.publish('MODEL ONE');
  }

  /** Put a model file and its description where the phone looks for them. */
  publish(content, changes) {
    this.model = content;
    this.description = makeDescription(content, changes);
  }

  answer(url, method, body, header) {
    if (url === `${MODELS}/export.json`) return { status: 200, body: JSON.parse(JSON.stringify(this.description)) };
    if (url === `${MODELS}/${this.description.files[0].name}`) return { status: 200, body: this.model };
    if (!url.startsWith(SERVER)) return { status: 404, body: 'no such file' };
    if (this.status) return { status: this.status, body: { detail: 'as the test wants it' } };
    if (header.authorization !== 'Bearer ffem_test') return { status: 401, body: { detail: 'no key' } };
    return this.serve(url.slice(SERVER.length), method, body === undefined ? undefined : JSON.parse(body));
  }

  serve(path, method, body) {
    if (method === 'POST' && path === '/v1/match') return this.match(body);
    if (method === 'POST' && path === '/v1/enrol') return this.enrol(body);
    if (method === 'DELETE' && path.startsWith('/v1/people/')) return this.forget(decodeURIComponent(path.slice('/v1/people/'.length)));
    return { status: 404, body: { detail: 'Not Found' } };
  }

  match({ model_id, vector, ...rest }) {
    const refusal = this.refuse(model_id, vector, rest);
    if (refusal) return refusal;
    let nearest = null;
    for (const person of this.people) {
      for (const other of person.vectors) {
        const distance = Math.hypot(...normalize(vector).map((value, at) => value - other[at])) / 2;
        if (nearest === null || distance < nearest.distance) nearest = { distance, person };
      }
    }
    const accepted = nearest !== null && nearest.distance <= THRESHOLD;
    return {
      status: 200,
      body: {
        accepted,
        person_id: accepted ? nearest.person.person_id : null,
        name: accepted ? nearest.person.name : null,
        distance: nearest === null ? null : nearest.distance,
        threshold: THRESHOLD,
      },
    };
  }

  enrol({ model_id, vector, name, ...rest }) {
    const refusal = this.refuse(model_id, vector, rest);
    if (refusal) return refusal;
    let person = this.people.find((other) => other.name === name);
    if (person === undefined) {
      person = { person_id: crypto.randomBytes(8).toString('hex'), name, vectors: [] };
      this.people.push(person);
    }
    person.vectors.push(normalize(vector));
    return { status: 201, body: { person_id: person.person_id, name, added: 1, vectors: person.vectors.length } };
  }

  refuse(model_id, vector, rest) {
    if (Object.keys(rest).length > 0) return { status: 422, body: { detail: `unknown: ${Object.keys(rest)}` } };
    if (model_id !== this.modelId) return { status: 409, body: { detail: `this server holds model ${this.modelId}` } };
    if (!Array.isArray(vector) || vector.length !== 12) return { status: 422, body: { detail: 'length' } };
    return undefined;
  }

  forget(person_id) {
    if (!/^[0-9a-f]{16}$/.test(person_id)) return { status: 422, body: { detail: 'person_id' } };
    if (!this.mayDelete) return { status: 403, body: { detail: 'this key may not delete' } };
    const known = this.people.some((person) => person.person_id === person_id);
    this.people = this.people.filter((person) => person.person_id !== person_id);
    return known ? { status: 200, body: { person_id, vectors: 1, wiped: true } } : { status: 404, body: { detail: 'nobody' } };
  }
}

function normalize(vector) {
  const length = Math.hypot(...vector);
  return vector.map((value) => value / length);
}

module.exports = { MODEL_ID, MODELS, Network, SERVER, makeDescription };
