/** One test's phone, network and pages, with nothing left over from the test before. */
const path = require('node:path');
const { MODELS, Network, SERVER } = require('./network');
const { Phone } = require('./phone');

const BUILD = path.join(__dirname, '..', 'build');

/** A drawn "face" of `width` x `height` pixels: a gradient whose colours and place follow from `person`. */
function drawFace(person, width = 48, height = 64) {
  const data = new Uint8Array(4 * width * height);
  for (let row = 0, at = 0; row < height; row += 1) {
    for (let column = 0; column < width; column += 1, at += 4) {
      data[at] = 255 * Math.abs(Math.sin(person + column / width));
      data[at + 1] = 255 * Math.abs(Math.cos(2 * person + row / height));
      data[at + 2] = (40 * person + 2 * row + column) % 256;
      data[at + 3] = 255;
    }
  }
  return { width, height, data };
}

/** Everything that happens at once, done: wx answers on timers of 0 ms. */
async function settle(turns = 30) {
  for (let turn = 0; turn < turns; turn += 1) await new Promise((resolve) => setTimeout(resolve, 0));
}

/** A stage with the operator's settings made. `changeWx` may take something away from this phone's WeChat. */
function setUp({ settings = {}, changeWx = () => undefined, ...options } = {}) {
  jest.resetModules();
  const network = new Network();
  const phone = new Phone({ network, ...options });
  global.wx = phone.makeWx();
  changeWx(global.wx);
  const { SETTINGS } = require(path.join(BUILD, 'settings'));
  Object.assign(SETTINGS, { server: SERVER, models: MODELS, apiKey: 'ffem_test' }, settings);
  return { network, phone, open: openPage };
}

// Loaded once: it keeps the compiled markup. What it loads, the pages' code, is fresh in each test all the same.
let simulate;

/** Open a page as WeChat does and wait until it is still. */
async function openPage(name) {
  simulate ??= require('miniprogram-simulate');
  const id = simulate.load(path.join(BUILD, 'pages', name, name), { rootPath: BUILD });
  const component = simulate.render(id);
  component.attach(document.createElement('div'));
  const page = {
    get data() {
      return component.instance.data;
    },
    call: async (method, ...words) => {
      await component.instance[method](...words);
      await settle();
    },
    show: async () => {
      component.instance.onShow();
      await settle();
    },
    get text() {
      return component.dom.textContent.replace(/\s+/g, ' ').trim();
    },
    dom: component.dom,
    component,
  };
  await page.show();
  return page;
}

module.exports = { BUILD, drawFace, setUp, settle };
