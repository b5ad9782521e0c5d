/**
 * A phone with WeChat for tests: files under a quota, storage, a network, a camera, an album, an inference engine.
 *
 * Each part fails the way WeChat's documentation and its users report, when the test asks for it. What it cannot show
 * is whether a real phone does the same.
 */
const crypto = require('node:crypto');

const USER_DATA_PATH = 'wxfile://usr';
const STORAGE_FULL = { errMsg: 'saveFile:fail the maximum size of the file storage limit is exceeded', errCode: 1300202 };

const later = (call) => setTimeout(call, 0);

class Phone {
  constructor({ network, quotaBytes = 10_000_000 }) {
    this.network = network;
    this.quotaBytes = quotaBytes;
    this.files = new Map(); // path -> Buffer, kept
    this.temporary = new Map(); // path -> Buffer, gone with the process
    this.storage = new Map();
    this.requests = []; // everything that left the phone
    this.frame = null; // what the camera sees: {width, height, data}
    this.album = null; // what the person chooses: {width, height, data}
    this.cameraAllowed = true;
    this.privacyAccepted = true;
    this.offline = false;
    this.cutDownloads = false;
    this.refuseDomains = false;
    this.engine = makeEngine();
    this.openSessions = 0;
    this.asked = []; // permissions and privacy questions, in order
    this.counter = 0;
  }

  makeWx() {
    const phone = this;
    const wx = {
      env: { USER_DATA_PATH },
      getAppBaseInfo: () => ({ language: 'en', SDKVersion: '3.4.5' }),
      getStorageSync: (key) => (phone.storage.has(key) ? JSON.parse(phone.storage.get(key)) : ''),
      setStorageSync: (key, value) => void phone.storage.set(key, JSON.stringify(value)),
      removeStorageSync: (key) => void phone.storage.delete(key),
      setTabBarItem: () => undefined,
      request: (option) => phone.request(option),
      downloadFile: (option) => phone.downloadFile(option),
      getFileSystemManager: () => phone.makeFileSystem(),
      authorize: ({ scope, success, fail }) => {
        phone.asked.push(scope);
        later(() => (phone.cameraAllowed ? success({ errMsg: 'ok' }) : fail({ errMsg: 'authorize:fail auth deny' })));
      },
      openSetting: ({ complete }) => later(() => complete({ errMsg: 'openSetting:ok' })),
      requirePrivacyAuthorize: ({ success, fail }) => {
        phone.asked.push('privacy');
        const answer = phone.privacyAccepted ? () => success({}) : () => fail({ errMsg: 'privacy permission is denied' });
        later(answer);
      },
      createCameraContext: () => phone.makeCamera(),
      chooseMedia: async () => {
        if (phone.album === null) throw { errMsg: 'chooseMedia:fail cancel' };
        return { tempFiles: [{ tempFilePath: 'wxfile://tmp/chosen.jpg' }] };
      },
      cropImage: ({ src, success }) => later(() => success({ tempFilePath: `${src}.cropped.jpg` })),
      getImageInfo: async () => ({ width: phone.album.width, height: phone.album.height }),
      createOffscreenCanvas: () => phone.makeCanvas(),
      createInferenceSession: (option) => phone.createSession(option),
    };
    return wx;
  }

  request({ url, method = 'GET', header, data, success, fail }) {
    this.requests.push({ url, method, header, body: data });
    later(() => {
      if (this.refuseDomains) return fail({ errMsg: 'request:fail url not in domain list' });
      if (this.offline) return fail({ errMsg: 'request:fail timeout' });
      const { status, body } = this.network.answer(url, method, data, header);
      return success({ statusCode: status, data: body });
    });
  }

  downloadFile({ url, success, fail }) {
    const listeners = [];
    this.requests.push({ url, method: 'GET' });
    later(() => {
      if (this.offline) return fail({ errMsg: 'downloadFile:fail timeout' });
      const { status, body } = this.network.answer(url, 'GET');
      listeners.forEach((listener) => listener({ progress: 40 }));
      if (this.cutDownloads) return fail({ errMsg: 'downloadFile:fail socket closed' });
      listeners.forEach((listener) => listener({ progress: 100 }));
      const tempFilePath = `wxfile://tmp/${++this.counter}`;
      this.temporary.set(tempFilePath, Buffer.from(status === 200 ? body : ''));
      return success({ statusCode: status, tempFilePath });
    });
    return { onProgressUpdate: (listener) => listeners.push(listener) };
  }

  makeFileSystem() {
    const missing = (path) => new Error(`no such file or directory ${path}`);
    return {
      statSync: (path) => {
        if (!this.files.has(path)) throw missing(path);
        return { size: this.files.get(path).length };
      },
      readdirSync: (folder) => [...this.files.keys()].map((path) => path.slice(folder.length + 1)),
      unlinkSync: (path) => {
        if (!this.files.delete(path)) throw missing(path);
      },
      saveFile: ({ tempFilePath, filePath, success, fail }) =>
        later(() => {
          const content = this.temporary.get(tempFilePath);
          if (content === undefined) return fail({ errMsg: `saveFile:fail no such file or directory ${tempFilePath}` });
          if (this.usedBytes() + content.length > this.quotaBytes) return fail(STORAGE_FULL);
          this.temporary.delete(tempFilePath);
          this.files.set(filePath, content);
          return success({ savedFilePath: filePath });
        }),
      getFileInfo: ({ filePath, digestAlgorithm, success, fail }) =>
        later(() => {
          const content = this.temporary.get(filePath) ?? this.files.get(filePath);
          if (content === undefined) return fail({ errMsg: `getFileInfo:fail no such file or directory ${filePath}` });
          const algorithm = this.knownDigests().includes(digestAlgorithm) ? digestAlgorithm : 'md5';
          const digest = crypto.createHash(algorithm).update(content).digest('hex');
          return success({ size: content.length, digest });
        }),
    };
  }

  knownDigests() {
    return ['md5', 'sha1', 'sha256'];
  }

  usedBytes() {
    return [...this.files.values()].reduce((bytes, content) => bytes + content.length, 0);
  }

  makeCamera() {
    return {
      onCameraFrame: (listener) => {
        let running = false;
        return {
          start: () => {
            running = true;
            later(() => running && this.frame && listener({ ...this.frame, data: this.frame.data.buffer }));
          },
          stop: () => {
            running = false;
          },
        };
      },
    };
  }

  makeCanvas() {
    const { album } = this;
    return {
      createImage: () => ({
        set src(_) {
          later(() => (album.unreadable ? this.onerror() : this.onload()));
        },
        onload: null,
        onerror: null,
      }),
      getContext: () => ({
        fillRect: () => undefined,
        drawImage: () => undefined,
        getImageData: () => ({ data: album.data }),
      }),
    };
  }

  createSession(option) {
    const { engine } = this;
    if (engine.throws) throw engine.throws;
    const content = this.files.get(option.model);
    let onLoad = () => undefined;
    let onError = () => undefined;
    this.openSessions += 1;
    later(() => {
      if (engine.silent) return;
      if (engine.refuses || content === undefined) onError(engine.refuses ?? { errMsg: 'no such file' });
      else onLoad();
    });
    return {
      onLoad: (call) => (onLoad = call),
      onError: (call) => (onError = call),
      run: async (tensors) => engine.run(tensors),
      destroy: () => (this.openSessions -= 1),
    };
  }
}

/**
 * An engine whose "network" averages the picture's quarters and its colours: enough that two faces differ. It takes a
 * tensor called `pixels` and gives one called `embedding`, and is as strict about names and shapes as WeChat's.
 */
function makeEngine() {
  return {
    run(tensors) {
      const tensor = tensors.pixels;
      if (tensor === undefined) throw { errMsg: `run:fail no input pixels among ${Object.keys(tensors)}` };
      const [, colours, height, width] = tensor.shape;
      const pixels = new Float32Array(tensor.data);
      if (colours !== 3 || pixels.length !== 3 * height * width) throw { errMsg: 'run:fail shape' };
      const embedding = new Float32Array(12);
      pixels.forEach((value, at) => {
        const colour = Math.floor(at / (height * width));
        const row = Math.floor((at % (height * width)) / width);
        const quarter = 2 * Number(row >= height / 2) + Number(at % width >= width / 2);
        embedding[4 * colour + quarter] += value;
      });
      return { embedding: { type: 'float32', shape: [1, 12], data: embedding.buffer } };
    },
  };
}

module.exports = { Phone, USER_DATA_PATH };
