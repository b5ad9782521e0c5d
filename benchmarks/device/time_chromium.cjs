// Times models in headless Chromium with the wasm backend on one thread: `node time_chromium.cjs PACKAGES CHROMIUM`.
//
// Requests and answers are those of ffem_jax/export/node/time_tfjs.cjs, whose timing.cjs runs in the page. CHROMIUM: the
// browser's executable. The pages are isolated, which gives them a clock of 5 rather than 100 microseconds; threads,
// which isolation would allow, are switched off: most sites are not isolated and have none.
"use strict";

const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");
const readline = require("node:readline");
const { createRequire } = require("node:module");

const TIMING = path.join(__dirname, "../../ffem_jax/export/node/timing.cjs");
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".cjs": "text/javascript", ".wasm": "application/wasm" };

// Each kind of model has a page of its own, with the scripts that a site using it would load. face-api brings its own
// TensorFlow.js, of the same version.
const SCRIPTS = {
  graph: [
    "@tensorflow/tfjs-core/dist/tf-core.min.js",
    "@tensorflow/tfjs-converter/dist/tf-converter.min.js",
    "@tensorflow/tfjs-backend-cpu/dist/tf-backend-cpu.min.js",
    "@tensorflow/tfjs-backend-wasm/dist/tf-backend-wasm.min.js",
  ],
  face_api: ["@vladmandic/face-api/dist/face-api.js"],
};

function makePage(kind) {
  const scripts = SCRIPTS[kind].map((name) => `<script src="/packages/${name}"></script>`).join("");
  return `<!doctype html><meta charset="utf-8">${scripts}<script src="/timing.cjs"></script>`;
}

// Serves the pages, the packages and the folders of models to this machine alone.
function serve(packages, models) {
  const server = http.createServer((request, response) => {
    const headers = {
      "Cross-Origin-Opener-Policy": "same-origin",
      "Cross-Origin-Embedder-Policy": "require-corp",
      "Cache-Control": "no-store",
    };
    const [, place, ...rest] = decodeURIComponent(new URL(request.url, "http://localhost").pathname).split("/");
    if (place === "page") return response.writeHead(200, { ...headers, "Content-Type": "text/html" }).end(makePage(rest[0]));
    const file = {
      packages: () => path.join(packages, "node_modules", ...rest),
      models: () => path.join(models[Number(rest[0])] ?? "", ...rest.slice(1)),
      "timing.cjs": () => TIMING,
    }[place]?.();
    if (!file || !fs.existsSync(file)) return response.writeHead(404, headers).end();
    const type = TYPES[path.extname(file)] ?? "application/octet-stream";
    response.writeHead(200, { ...headers, "Content-Type": type }).end(fs.readFileSync(file));
  });
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server)));
}

// Runs in the page.
async function prepare(kind) {
  const tf = kind === "face_api" ? window.faceapi.tf : window.tf;
  tf.env().set("WASM_HAS_MULTITHREAD_SUPPORT", false);
  const folder = "/packages/@tensorflow/tfjs-backend-wasm/dist/";
  (tf.wasm ?? tf).setWasmPaths(folder);
  await tf.setBackend("wasm");
  await tf.ready();
  window.timer = window.makeTimer(tf);
  window.kinds = {
    graph: async ({ model, output }) => {
      const graph = await tf.loadGraphModel(model);
      return (pixels) => graph.execute(pixels, output ?? undefined);
    },
    face_api: async ({ model }) => {
      const network = new window.faceapi.FaceRecognitionNet();
      await network.loadFromUri(model);
      return (pixels) => network.forwardInput(new window.faceapi.NetInput([pixels.squeeze([0])]));
    },
  };
  if (tf.getBackend() !== "wasm") throw new Error(`the backend is ${tf.getBackend()}`);
}

async function main([packages, chromium]) {
  const { chromium: launcher } = createRequire(path.join(packages, "package.json"))("playwright-core");
  const models = [];
  const server = await serve(packages, models);
  const origin = `http://127.0.0.1:${server.address().port}`;
  const browser = await launcher.launch({ executablePath: chromium, args: ["--no-sandbox"] });
  const pages = {};
  const kindOf = {};

  async function openPage(kind) {
    const page = await browser.newPage();
    await page.goto(`${origin}/page/${kind}`);
    await page.evaluate(prepare, kind);
    return page;
  }

  async function load(request) {
    const page = (pages[request.kind] ??= await openPage(request.kind));
    kindOf[request.name] = request.kind;
    // A model is a file of a folder, or the folder itself.
    const isFile = fs.statSync(request.model).isFile();
    const number = models.push(isFile ? path.dirname(request.model) : request.model) - 1;
    const model = `${origin}/models/${number}/${isFile ? path.basename(request.model) : ""}`;
    return page.evaluate((it) => window.timer.add(it, () => window.kinds[it.kind](it)), { ...request, model });
  }

  async function answer(request) {
    if (request.load) return load(request.load);
    if (request.time) return pages[kindOf[request.time]].evaluate((name) => window.timer.time(name), request.time);
    const page = (pages.graph ??= await openPage("graph"));
    const version = await page.evaluate(() => window.tf.version_core);
    return `tfjs ${version} wasm, 1 thread, Chromium ${browser.version()}`;
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
  await browser.close();
  server.close();
}

main(process.argv.slice(2)).catch((error) => {
  process.stdout.write(`${JSON.stringify({ error: String((error && error.message) || error) })}\n`);
  process.exit(1);
});
