/** build/, as it would be uploaded: its size, its files, and what its pages refer to. */
const fs = require('node:fs');
const path = require('node:path');
const compiler = require('miniprogram-compiler');
const { BUILD, setUp } = require('./stage');

const PACKAGE_LIMIT_BYTES = 2 * 1024 * 1024;

const files = fs
  .readdirSync(BUILD, { recursive: true })
  .map((name) => path.join(BUILD, name))
  .filter((name) => fs.statSync(name).isFile());
const read = (...names) => fs.readFileSync(path.join(BUILD, ...names), 'utf8');
const app = JSON.parse(read('app.json'));
const markup = files.filter((name) => name.endsWith('.wxml'));

test('it is far below what WeChat takes, and holds no TypeScript, no model and no picture', () => {
  const bytes = files.reduce((sum, name) => sum + fs.statSync(name).size, 0);
  expect(bytes).toBeLessThan(PACKAGE_LIMIT_BYTES / 10);
  const kinds = new Set(files.map((name) => path.extname(name)));
  expect([...kinds].sort()).toEqual(['.js', '.json', '.wxml', '.wxss']);
});

test('every page and tab has its files', () => {
  const tabs = app.tabBar.list.map(({ pagePath }) => pagePath);
  expect(tabs).toEqual(app.pages);
  for (const page of app.pages) {
    for (const extension of ['js', 'wxml']) expect(fs.existsSync(path.join(BUILD, `${page}.${extension}`))).toBe(true);
    // A page made with Component() takes this field, empty or not.
    expect(JSON.parse(read(`${page}.json`))).toHaveProperty('usingComponents');
  }
  expect(fs.existsSync(path.join(BUILD, app.sitemapLocation))).toBe(true);
});

test('WeChat’s own compiler takes every style sheet', () => {
  expect(typeof compiler.wxssToJs(BUILD)).toBe('string');
});

test.each(markup.map((name) => [path.relative(BUILD, name), name]))('%s names handlers and texts that exist', (_, name) => {
  const text = fs.readFileSync(name, 'utf8');
  const code = fs.readFileSync(name.replace(/wxml$/, 'js'), 'utf8');
  const handlers = [...text.matchAll(/\bbind\w+="(\w+)"/g)].map(([, handler]) => handler);
  expect(handlers.length).toBeGreaterThan(0);
  for (const handler of handlers) expect(code).toMatch(new RegExp(`^ +(async )?${handler}\\(`, 'm'));
  setUp();
  const { chooseTexts } = require(path.join(BUILD, 'texts'));
  for (const [, key] of text.matchAll(/\btexts\.(\w+)/g)) {
    for (const language of ['en', 'zh_CN']) expect(chooseTexts(language)).toHaveProperty(key);
  }
});

test('the Chinese texts are Chinese, every one', () => {
  setUp();
  const { chooseTexts } = require(path.join(BUILD, 'texts'));
  const flat = (texts) => Object.entries(texts).flatMap(([key, value]) => (typeof value === 'object' ? flat(value) : [[key, value]]));
  for (const [key, value] of flat(chooseTexts('zh_CN'))) {
    if (/^sentFields/.test(key)) continue; // names of JSON fields
    expect(value).toMatch(/[\u4e00-\u9fff]/);
  }
  for (const [, value] of flat(chooseTexts('en'))) expect(value).not.toMatch(/[\u4e00-\u9fff]/);
});
