/** Copy TensorFlow.js from node_modules into vendor/, so that the page needs nothing but its own folder. */

import { copyFileSync, mkdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const FILES = [
  "tfjs-core/dist/tf-core.min.js",
  "tfjs-converter/dist/tf-converter.min.js",
  "tfjs-backend-wasm/dist/tf-backend-wasm.min.js",
  "tfjs-backend-wasm/dist/tfjs-backend-wasm.wasm",
  "tfjs-backend-wasm/dist/tfjs-backend-wasm-simd.wasm",
  "tfjs-backend-wasm/dist/tfjs-backend-wasm-threaded-simd.wasm",
];

mkdirSync(join(here, "vendor"), { recursive: true });
for (const file of FILES) {
  copyFileSync(join(here, "node_modules", "@tensorflow", file), join(here, "vendor", basename(file)));
}
console.log(`vendor/: ${FILES.length} files`);
