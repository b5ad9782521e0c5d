/** The pages as a person meets them: enrol, recognise, a stranger, and everything that can go wrong. */
const { MODELS, SERVER } = require('./network');
const { drawFace, setUp, settle } = require('./stage');

const ANNA = 1;
const BEN = 2.2;
const CLEO = 4.1;

/** What went to the recognition server, parsed. */
const sent = (phone) =>
  phone.requests
    .filter(({ url }) => url.startsWith(SERVER))
    .map(({ url, method, body }) => ({ path: url.slice(SERVER.length), method, body: body && JSON.parse(body) }));

async function openAgreed(stage, name) {
  const page = await stage.open(name);
  if (page.data.step === 'consent') await page.call('onAgree');
  return page;
}

async function enrol(page, phone, name, person) {
  phone.frame = drawFace(person);
  page.component.instance.onName({ detail: { value: name } });
  await page.call('onTake');
}

async function recognise(page, phone, person) {
  phone.frame = drawFace(person);
  await page.call('onTake');
  return page.data.answer;
}

test('three people are enrolled and recognised, and a stranger is not', async () => {
  const stage = setUp();
  const { phone } = stage;
  const enrolling = await openAgreed(stage, 'enrol');
  await enrol(enrolling, phone, ' Anna ', ANNA);
  await enrol(enrolling, phone, 'Ben', BEN);
  expect(enrolling.text).toContain('Enrolled: Ben');
  const recognising = await stage.open('recognise');
  expect(await recognise(recognising, phone, ANNA + 0.01)).toMatchObject({ accepted: true, name: 'Anna' });
  expect(recognising.text).toContain('Anna');
  expect(await recognise(recognising, phone, BEN)).toMatchObject({ accepted: true, name: 'Ben', distance: '0.000' });
  expect(await recognise(recognising, phone, CLEO)).toMatchObject({ accepted: false, name: '' });
  expect(recognising.text).toContain('Nobody who is enrolled');
  await enrol(enrolling, phone, 'Cleo', CLEO);
  expect(await recognise(recognising, phone, CLEO)).toMatchObject({ accepted: true, name: 'Cleo' });
});

test('only the model’s id, the vector and a name leave the phone', async () => {
  const stage = setUp();
  const enrolling = await openAgreed(stage, 'enrol');
  await enrol(enrolling, stage.phone, '安娜', ANNA);
  const page = await stage.open('recognise');
  await recognise(page, stage.phone, ANNA);
  const all = sent(stage.phone);
  expect(all.map(({ method, path }) => `${method} ${path}`)).toEqual(['POST /v1/enrol', 'POST /v1/match']);
  expect(Object.keys(all[0].body).sort()).toEqual(['model_id', 'name', 'vector']);
  expect(Object.keys(all[1].body).sort()).toEqual(['model_id', 'vector']);
  expect(all[1].body.vector).toHaveLength(12);
  const others = stage.phone.requests.filter(({ url }) => !url.startsWith(SERVER));
  expect(others.every(({ url, method, body }) => url.startsWith(MODELS) && method === 'GET' && !body)).toBe(true);
  const body = stage.phone.requests.find(({ url }) => url.endsWith('/v1/enrol')).body;
  expect(enrolling.data.bytesSent).toBe(Buffer.byteLength(body));
});

test('the vector is that of the guide frame and of nothing outside it', async () => {
  const stage = setUp();
  const page = await openAgreed(stage, 'recognise');
  await recognise(page, stage.phone, ANNA);
  const face = drawFace(ANNA); // 48 x 64: the square is 29 pixels, from (9, 17) on
  for (let at = 0; at < face.data.length; at += 4) {
    const [column, row] = [(at / 4) % 48, Math.floor(at / 4 / 48)];
    if (column < 9 || column >= 38 || row < 17 || row >= 46) face.data.fill(0, at, at + 3);
  }
  stage.phone.frame = face;
  await page.call('onTake');
  face.data.fill(0);
  await page.call('onTake');
  const vectors = sent(stage.phone).map(({ body }) => body.vector);
  expect(vectors[1]).toEqual(vectors[0]);
  expect(vectors[2]).not.toEqual(vectors[0]);
});

describe('consent', () => {
  test('comes before the model, the camera and every picture', async () => {
    const stage = setUp();
    const page = await stage.open('recognise');
    stage.phone.frame = stage.phone.album = drawFace(ANNA);
    expect(page.data.step).toBe('consent');
    expect(page.text).toContain('biometric personal data');
    expect(page.dom.querySelector('wx-camera')).toBeNull();
    await page.call('onTake');
    await page.call('onChoose');
    expect(stage.phone.requests).toEqual([]);
    expect(stage.phone.asked).toEqual([]);
    await page.call('onDecline');
    expect(page.text).toContain('Nothing was captured');
    expect(stage.phone.requests).toEqual([]);
  });

  test('takes a tick and a tap, and is asked for once', async () => {
    const stage = setUp();
    const page = await stage.open('recognise');
    const form = page.component.querySelector('.form');
    form.instance.onAgree();
    await settle();
    expect(page.data.step).toBe('consent');
    form.instance.onTick();
    form.instance.onAgree();
    await settle();
    expect(page.data.step).toBe('ready');
    expect(page.dom.querySelector('wx-camera')).not.toBeNull();
    expect(stage.phone.asked).toEqual(['privacy', 'scope.camera']);
    expect((await stage.open('enrol')).data.step).toBe('ready');
  });

  test('that is refused in WeChat’s own question is none', async () => {
    const stage = setUp();
    stage.phone.privacyAccepted = false;
    const page = await stage.open('recognise');
    await page.call('onAgree');
    expect(page.data.step).toBe('consent');
    expect(page.text).toContain('privacy statement was declined');
  });

  test('works where WeChat has no such question', async () => {
    const stage = setUp({ changeWx: (wx) => delete wx.requirePrivacyAuthorize });
    expect((await openAgreed(stage, 'recognise')).data.step).toBe('ready');
  });

  test('once withdrawn stops every capture, on an open page too', async () => {
    const stage = setUp();
    const page = await openAgreed(stage, 'recognise');
    const about = await stage.open('about');
    expect(about.text).toContain('Given:');
    await about.call('onWithdraw');
    expect(about.text).toContain('Not given.');
    await recognise(page, stage.phone, ANNA);
    expect(sent(stage.phone)).toEqual([]);
    expect(page.data.step).toBe('consent');
  });
});

describe('what goes wrong', () => {
  test('no network: the enrolled name is not remembered, and a second try works', async () => {
    const stage = setUp();
    const page = await openAgreed(stage, 'enrol');
    stage.phone.offline = true;
    await enrol(page, stage.phone, 'Anna', ANNA);
    expect(page.text).toContain('server cannot be reached');
    expect(page.data.enrolled).toBe('');
    expect((await stage.open('about')).text).toContain('Nothing was enrolled');
    stage.phone.offline = false;
    await page.call('onTake');
    expect(page.data).toMatchObject({ enrolled: 'Anna', failure: '', step: 'ready' });
  });

  test('no network at the first start: try again', async () => {
    const stage = setUp();
    stage.phone.offline = true;
    const page = await openAgreed(stage, 'recognise');
    expect(page.data.step).toBe('failed');
    expect(page.text).toContain('server cannot be reached');
    stage.phone.offline = false;
    await page.call('prepare');
    expect(page.data).toMatchObject({ step: 'ready', failure: '' });
  });

  test.each([
    [409, 'knows another model'],
    [401, 'does not accept this mini-program’s key'],
    [422, 'did not accept the request'],
    [429, 'Too many requests'],
    [500, 'The server failed'],
  ])('HTTP %i from the server', async (status, sentence) => {
    const stage = setUp();
    const page = await openAgreed(stage, 'recognise');
    stage.network.status = status;
    expect(await recognise(page, stage.phone, ANNA)).toBeNull();
    expect(page.text).toContain(sentence);
    expect(page.data.step).toBe('ready');
  });

  test('a server of another model', async () => {
    const stage = setUp();
    const page = await openAgreed(stage, 'recognise');
    stage.network.modelId = 'fedcba9876543210';
    await recognise(page, stage.phone, ANNA);
    expect(page.text).toContain('knows another model');
    expect(page.text).toContain('fedcba9876543210');
  });

  test('storage full', async () => {
    const stage = setUp({ quotaBytes: 3 });
    const page = await openAgreed(stage, 'recognise');
    expect(page.data.step).toBe('failed');
    expect(page.text).toContain('no room for the model');
  });

  test('a damaged download: nothing runs without a model, the old one runs on where there is one', async () => {
    const stage = setUp();
    stage.network.model = 'MODEL 0NE';
    const page = await openAgreed(stage, 'recognise');
    expect(page.text).toContain('arrived damaged');
    stage.network.publish('MODEL ONE');
    await page.call('prepare');
    expect(page.data).toMatchObject({ step: 'ready', notice: '' });
  });

  test('an update that fails is said, and the model that is here runs', async () => {
    const stage = setUp();
    await openAgreed(stage, 'recognise');
    const { phone } = stage;
    const later = setUp();
    later.phone.files = phone.files;
    later.phone.storage = phone.storage;
    later.phone.offline = true;
    const page = await later.open('recognise');
    expect(page.data.step).toBe('ready');
    expect(page.text).toContain('server cannot be reached');
  });

  test('a session that cannot be made', async () => {
    const stage = setUp();
    stage.phone.engine.refuses = { errMsg: 'create session fail' };
    const page = await openAgreed(stage, 'recognise');
    expect(page.text).toContain('This phone cannot run the model. (create session fail)');
    delete stage.phone.engine.refuses;
    await page.call('prepare');
    expect(page.data.step).toBe('ready');
  });

  test('a WeChat without inference', async () => {
    const stage = setUp({ changeWx: (wx) => delete wx.createInferenceSession });
    const page = await openAgreed(stage, 'recognise');
    expect(page.text).toContain('This WeChat is too old');
  });

  test('the camera refused: the settings are offered and a picture still works', async () => {
    const stage = setUp();
    stage.phone.cameraAllowed = false;
    const page = await openAgreed(stage, 'recognise');
    expect(page.data).toMatchObject({ step: 'ready', cameraAllowed: false });
    expect(page.text).toContain('The camera is not allowed');
    stage.phone.album = drawFace(ANNA, 40, 40);
    await page.call('onChoose');
    expect(page.data.answer).toMatchObject({ accepted: false });
    stage.phone.cameraAllowed = true;
    await page.call('prepare');
    expect(page.data.cameraAllowed).toBe(true);
    expect(page.text).not.toContain('The camera is not allowed');
  });

  test('a camera that sends nothing', async () => {
    const stage = setUp();
    const page = await openAgreed(stage, 'recognise');
    jest.useFakeTimers();
    const taking = page.component.instance.onTake();
    await jest.advanceTimersByTimeAsync(10_000);
    jest.useRealTimers();
    await taking;
    expect(page.text).toContain('The camera sent no picture');
  });

  test('no picture chosen is no failure, an unreadable one is', async () => {
    const stage = setUp();
    const page = await openAgreed(stage, 'recognise');
    await page.call('onChoose');
    expect(page.data).toMatchObject({ step: 'ready', failure: '', answer: null });
    stage.phone.album = { ...drawFace(ANNA), unreadable: true };
    await page.call('onChoose');
    expect(page.text).toContain('That picture cannot be read');
  });

  test('no name', async () => {
    const stage = setUp();
    const page = await openAgreed(stage, 'enrol');
    await enrol(page, stage.phone, '   ', ANNA);
    expect(page.text).toContain('Type a name first');
    expect(sent(stage.phone)).toEqual([]);
  });

  test('a program that nobody has set up', async () => {
    const stage = setUp({ settings: { models: '' } });
    expect((await openAgreed(stage, 'recognise')).text).toContain('settings.ts');
  });

  test('a second tap while the first is at work sends nothing twice', async () => {
    const stage = setUp();
    const page = await openAgreed(stage, 'recognise');
    stage.phone.frame = drawFace(ANNA);
    await Promise.all([page.component.instance.onTake(), page.component.instance.onTake()]);
    expect(sent(stage.phone)).toHaveLength(1);
  });
});

describe('one’s own data', () => {
  test('is listed and deleted on the server', async () => {
    const stage = setUp();
    const enrolling = await openAgreed(stage, 'enrol');
    await enrol(enrolling, stage.phone, 'Anna', ANNA);
    await enrol(enrolling, stage.phone, 'Anna', ANNA + 0.05);
    await enrol(enrolling, stage.phone, 'Ben', BEN);
    const about = await stage.open('about');
    expect(about.data.enrolments.map(({ name }) => name)).toEqual(['Anna', 'Ben']);
    await about.call('onDelete', { currentTarget: { dataset: { index: 0 } } });
    expect(about.data.enrolments.map(({ name }) => name)).toEqual(['Ben']);
    expect(about.text).toContain('Deleted on the server: Anna');
    expect(stage.network.people.map(({ name }) => name)).toEqual(['Ben']);
  });

  test.each([
    ['offline', (stage) => (stage.phone.offline = true), 'server cannot be reached'],
    ['with a key that may not', (stage) => (stage.network.mayDelete = false), 'Ask the operator to delete this name'],
  ])('stays listed when it cannot be deleted: %s', async (_, spoil, sentence) => {
    const stage = setUp();
    await enrol(await openAgreed(stage, 'enrol'), stage.phone, 'Anna', ANNA);
    const about = await stage.open('about');
    spoil(stage);
    await about.call('onDelete', { currentTarget: { dataset: { index: 0 } } });
    expect(about.text).toContain(sentence);
    expect(about.data.enrolments).toHaveLength(1);
    expect(stage.network.people).toHaveLength(1);
  });

  test('that somebody deleted on the server before is gone here too', async () => {
    const stage = setUp();
    await enrol(await openAgreed(stage, 'enrol'), stage.phone, 'Anna', ANNA);
    stage.network.people = [];
    const about = await stage.open('about');
    await about.call('onDelete', { currentTarget: { dataset: { index: 0 } } });
    expect(about.data.enrolments).toEqual([]);
  });

  test('includes the model, which can be removed from the phone', async () => {
    const stage = setUp();
    const page = await openAgreed(stage, 'recognise');
    const about = await stage.open('about');
    expect(about.text).toContain('FFEM-AM');
    await about.call('onRemoveModel');
    expect(about.text).toContain('No model is stored');
    expect(stage.phone.files.size).toBe(0);
    expect(stage.phone.openSessions).toBe(0);
    await page.show();
    expect(page.data.step).toBe('ready');
  });
});
