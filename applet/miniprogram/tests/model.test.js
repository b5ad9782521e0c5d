/** The model on the phone: downloaded once, checked, kept under the cap, and never lost to a bad download. */
const path = require('node:path');
const { MODEL_ID } = require('./network');
const { USER_DATA_PATH } = require('./phone');
const { BUILD, setUp, settle } = require('./stage');

const load = (name) => require(path.join(BUILD, name));
const downloads = (phone) => phone.requests.filter(({ url }) => url.endsWith('.onnx')).length;
const kept = (phone) => [...phone.files.values()].map(String);

async function update(onProgress = () => undefined) {
  const updating = load('model/update').updateModel(onProgress);
  // A rejection before the caller looks would count as unhandled.
  updating.catch(() => undefined);
  await settle();
  return updating;
}

async function failureOf(promise) {
  const failure = await promise.then(
    () => undefined,
    (error) => error,
  );
  expect(failure).toBeDefined();
  return failure;
}

test('the model is downloaded once and then found', async () => {
  const { phone } = setUp();
  const shares = [];
  const first = await update((share) => shares.push(share));
  const again = await update();
  expect(first.path.startsWith(`${USER_DATA_PATH}/`)).toBe(true);
  expect(first.path.endsWith('.onnx')).toBe(true);
  expect(again.path).toBe(first.path);
  expect(downloads(phone)).toBe(1);
  expect(shares).toEqual([0.4, 1]);
  expect(kept(phone)).toEqual(['MODEL ONE']);
});

test('a new model takes the place of the old one', async () => {
  const { network, phone } = setUp();
  await update();
  network.publish('MODEL TWO', { model_id: 'fedcba9876543210' });
  const current = await update();
  expect(current.description.model_id).toBe('fedcba9876543210');
  expect(current.outdated).toBeUndefined();
  expect(kept(phone)).toEqual(['MODEL TWO']);
});

test.each([
  ['another file than export.json says', (network) => (network.model = 'MODEL TWX'), 'download_damaged'],
  ['a file that is too short', (network) => (network.model = 'MODEL'), 'download_damaged'],
  ['a download that is cut off', (_, phone) => (phone.cutDownloads = true), 'no_network'],
  ['no network', (_, phone) => (phone.offline = true), 'no_network'],
  ['a missing file', (network) => (network.description.files[0].name = 'other.onnx'), 'model_unavailable'],
  ['a description that is none', (network) => (network.description = { version: 1 }), 'bad_description'],
  ['a model over the cap', (network) => (network.description.files[0].bytes = 10_000_001), 'model_too_large'],
])('%s leaves the old model in use', async (_, spoil, kind) => {
  const { network, phone } = setUp();
  await update();
  network.publish('MODEL TWO');
  network.answer = withMissing(network);
  spoil(network, phone);
  const current = await update();
  expect(current.outdated.kind).toBe(kind);
  expect(current.description.model_id).toBe(MODEL_ID);
  expect(kept(phone)).toEqual(['MODEL ONE']);
  expect(String(phone.files.get(current.path))).toBe('MODEL ONE');
});

/** A web server whose folder has no file of another name than model.onnx. */
function withMissing(network) {
  const answer = network.answer.bind(network);
  return (url, ...rest) => (url.endsWith('other.onnx') ? { status: 404, body: '' } : answer(url, ...rest));
}

test.each([
  ['damaged', (network) => (network.model = 'MODEL TWX'), 'download_damaged'],
  ['out of reach', (_, phone) => (phone.offline = true), 'no_network'],
  ['on a domain that is not allowed', (_, phone) => (phone.refuseDomains = true), 'domain_not_allowed'],
])('without an old model, one that is %s is a failure and leaves no file', async (_, spoil, kind) => {
  const { network, phone } = setUp();
  spoil(network, phone);
  expect((await failureOf(update())).kind).toBe(kind);
  expect(kept(phone)).toEqual([]);
});

test('where both do not fit the cap, the old one makes room', async () => {
  const { network, phone } = setUp({ settings: { storageCapBytes: 12 } });
  let most = 0;
  const used = phone.usedBytes.bind(phone);
  phone.usedBytes = () => {
    most = Math.max(most, used() + 9);
    return used();
  };
  await update();
  network.publish('MODEL TWO');
  await update();
  expect(kept(phone)).toEqual(['MODEL TWO']);
  expect(most).toBeLessThanOrEqual(12);
});

test('where the phone has room for one only, the old one makes room', async () => {
  const { network, phone } = setUp({ quotaBytes: 12 });
  await update();
  network.publish('MODEL TWO');
  const current = await update();
  expect(current.outdated).toBeUndefined();
  expect(kept(phone)).toEqual(['MODEL TWO']);
});

test('a full phone is told apart from everything else', async () => {
  const { phone } = setUp({ quotaBytes: 5 });
  expect((await failureOf(update())).kind).toBe('storage_full');
  expect(kept(phone)).toEqual([]);
  phone.quotaBytes = 100;
  expect(kept(phone)).toEqual([]);
  await update();
  expect(kept(phone)).toEqual(['MODEL ONE']);
});

test('a model whose file WeChat removed is downloaded again', async () => {
  const { phone } = setUp();
  await update();
  phone.files.clear();
  await update();
  expect(downloads(phone)).toBe(2);
  expect(kept(phone)).toEqual(['MODEL ONE']);
});

test('files that a stop left behind are removed', async () => {
  const { phone } = setUp();
  phone.files.set(`${USER_DATA_PATH}/0000000000000000.onnx`, Buffer.from('HALF'));
  phone.files.set(`${USER_DATA_PATH}/notes.txt`, Buffer.from('of another part'));
  await update();
  expect(kept(phone).sort()).toEqual(['MODEL ONE', 'of another part']);
});

test('a WeChat without SHA-256 accepts no model', async () => {
  const { phone } = setUp();
  phone.knownDigests = () => ['md5', 'sha1'];
  expect((await failureOf(update())).kind).toBe('no_checksum');
  expect(kept(phone)).toEqual([]);
});

test.each([
  [{ version: 2 }, 'version'],
  [{ format: 'tfjs' }, 'format'],
  [{ model_id: '../x' }, 'model_id'],
  [{ files: [] }, 'files'],
  [{ files: [{ name: '../secret.onnx', bytes: 9, sha256: 'a'.repeat(64) }] }, 'files.name'],
  [{ files: [{ name: 'm.onnx', bytes: -1, sha256: 'a'.repeat(64) }] }, 'files.bytes'],
  [{ files: [{ name: 'm.onnx', bytes: 9, sha256: 'short' }] }, 'files.sha256'],
  [{ input: { name: 'pixels', shape: [1, 16, 16, 3], dtype: 'float32', scale: 1, offset: 0 } }, 'input.shape'],
  [{ input: { name: 'pixels', shape: [1, 3, 16, 16], dtype: 'uint8', scale: 1, offset: 0 } }, 'input.dtype'],
  [{ input: { name: 'pixels', shape: [1, 3, 16, 16], dtype: 'float32', scale: null, offset: 0 } }, 'input.scale'],
  [{ crop: { resize: 'canvas', resolution: 16 } }, 'crop.resize'],
  [{ output: { name: 'embedding', length: 0 } }, 'output.length'],
])('export.json with %j is refused by the name of the field', async (changes, field) => {
  const { network } = setUp();
  network.publish('MODEL ONE', changes);
  const failure = await failureOf(update());
  expect(failure.kind).toBe('bad_description');
  expect(failure.detail.startsWith(`${field}:`)).toBe(true);
});

describe('the session', () => {
  async function open(phone) {
    const current = await update();
    const opening = load('model/session').openModel(current);
    opening.catch(() => undefined);
    await settle();
    return opening;
  }

  test('hands over pixels under the names in export.json', async () => {
    const { phone } = setUp();
    const model = await open(phone);
    const vector = await model.embed(Float32Array.from({ length: 3 * 16 * 16 }, (_, at) => at / 1000));
    expect(vector).toHaveLength(12);
    model.close();
    expect(phone.openSessions).toBe(0);
  });

  test.each([
    [{ refuses: { errMsg: 'create session fail' } }, 'session_failed'],
    [{ refuses: { errno: 2004010, errMsg: 'environment not ready' } }, 'inference_not_ready'],
    [{ throws: new Error('bad model') }, 'session_failed'],
  ])('that cannot be made (%j) is a failure and is closed', async (engine, kind) => {
    const { phone } = setUp();
    Object.assign(phone.engine, engine);
    expect((await failureOf(open(phone))).kind).toBe(kind);
    expect(phone.openSessions).toBe(0);
  });

  test('that neither loads nor fails is given up', async () => {
    const { phone } = setUp();
    phone.engine.silent = true;
    const current = await update();
    jest.useFakeTimers();
    try {
      const opening = failureOf(load('model/session').openModel(current));
      jest.advanceTimersByTime(60_000);
      expect((await opening).kind).toBe('session_failed');
    } finally {
      jest.useRealTimers();
    }
    expect(phone.openSessions).toBe(0);
  });

  test('of a WeChat without inference names the version it takes', async () => {
    const { phone } = setUp({ changeWx: (wx) => delete wx.createInferenceSession });
    const failure = await failureOf(open(phone));
    expect(failure.kind).toBe('no_inference');
    expect(failure.detail).toContain('2.30.0');
  });

  test.each([
    [{ output0: { data: new Float32Array(12).buffer } }, 'output0'],
    [{ embedding: { data: new Float32Array(11).buffer } }, '11 of 12'],
    [{ embedding: { data: new Float32Array(12).fill(NaN).buffer } }, 'not finite'],
  ])('that answers something else is a failure', async (answer, detail) => {
    const { phone } = setUp();
    phone.engine.run = () => answer;
    const model = await open(phone);
    const failure = await failureOf(model.embed(new Float32Array(3 * 16 * 16)));
    expect(failure.kind).toBe('wrong_output');
    expect(failure.detail).toContain(detail);
  });
});
