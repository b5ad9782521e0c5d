// source/ -> build/: TypeScript compiled, the rest copied, and the code shared with the page put in its place. build/
// is what WeChat's developer tools open and what the tests run.
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

const PACKAGE_LIMIT_BYTES = 2 * 1024 * 1024; // WeChat's, of a main package or a subpackage
const SHARED = ['alignment.js', 'matching.js', 'preprocessing.js'];

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const source = join(root, 'source');
const build = join(root, 'build');

function compile() {
  const { config } = ts.readConfigFile(join(root, 'tsconfig.json'), ts.sys.readFile);
  const { options, fileNames } = ts.parseJsonConfigFileContent(config, ts.sys, root);
  const program = ts.createProgram(fileNames, options);
  const { diagnostics } = program.emit();
  const all = [...ts.getPreEmitDiagnostics(program), ...diagnostics];
  if (all.length > 0) {
    const host = { getCanonicalFileName: (name) => name, getCurrentDirectory: () => root, getNewLine: () => '\n' };
    throw new Error(ts.formatDiagnostics(all, host));
  }
  return options;
}

/** The page's modules are ES modules; a mini-program's are CommonJS. */
function compileShared({ target }) {
  const compilerOptions = { target, module: ts.ModuleKind.CommonJS };
  mkdirSync(join(build, 'shared'), { recursive: true });
  for (const name of SHARED) {
    const text = readFileSync(join(root, '..', 'shared', name), 'utf8');
    writeFileSync(join(build, 'shared', name), ts.transpileModule(text, { compilerOptions }).outputText);
  }
}

function sizeOf(path) {
  if (!statSync(path).isDirectory()) return statSync(path).size;
  return readdirSync(path).reduce((bytes, name) => bytes + sizeOf(join(path, name)), 0);
}

try {
  rmSync(build, { recursive: true, force: true });
  compileShared(compile());
  cpSync(source, build, { recursive: true, filter: (path) => !path.endsWith('.ts') });
  const bytes = sizeOf(build);
  if (bytes > PACKAGE_LIMIT_BYTES) throw new Error(`build/ has ${bytes} bytes of at most ${PACKAGE_LIMIT_BYTES}`);
  console.log(`build/: ${bytes} bytes of at most ${PACKAGE_LIMIT_BYTES}`);
} catch (error) {
  console.error(`error: ${error.message}`);
  process.exit(1);
}
