// The records in the page, the reader's choices, and the numbers that follow from both.
const payload = JSON.parse(document.getElementById("payload").textContent);
const PRECISIONS = ["float32", "float16", "int8"];
const COSTS = payload.costs; // declared in ffem_jax/records/costs.py
const labelAxis = (against) => COSTS[against].axis.replaceAll("{precision}", state.precision);
const getMeasure = (metric = state.metric) => group.measures[metric]; // declared in ffem_jax/records/measures.py
const scoreOf = (network) => (getMeasure().lower ? -1 : 1) * getRate(network)[0]; // larger is better
const STATUSES = { done: "done", over_cap: "over the cap", failed: "failed", pruned: "stopped early" };
const state = { group: 0, against: "bytes", precision: "float32", metric: "accuracy", cap: 10, curve: "validation", pins: [], filter: null };
let group, networks, trials, shown;

const $ = (id) => document.getElementById(id);

// Create an element with text, never markup: text from records stays text.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// Turn text quoted with backticks (by ffem_jax/text/display.py) into code elements.
function makeText(text) {
  const parts = [];
  let end = 0;
  for (const found of text.matchAll(/(?<!`)(`+)(?!`)([^]+?)(?<!`)\1(?!`)/g)) {
    const padded = /^ [^]+ $/.test(found[2]) && found[2].trim();
    parts.push(text.slice(end, found.index), make("code", {}, padded ? found[2].slice(1, -1) : found[2]));
    end = found.index + found[0].length;
  }
  return [...parts, text.slice(end)].filter((part) => part !== "");
}

// Quote a name with backticks.
function quoteCode(name) {
  const fence = "`".repeat(1 + Math.max(0, ...[...name.matchAll(/`+/g)].map(([run]) => run.length)));
  const pad = /^`|`$/.test(name) || (/^ [^]* $/.test(name) && name.trim()) ? " " : "";
  return `${fence}${pad}${name}${pad}${fence}`;
}

function loadGroup(number) {
  group = payload.groups[number];
  const names = Object.fromEntries(payload.columns.map((name, i) => [name, i]));
  trials = group.trials.map((row, id) => {
    const trial = { id };
    for (const [name, i] of Object.entries(names)) trial[name] = row[i];
    return trial;
  });
  networks = group.networks.map((network, id) => ({ ...network, id, trials: [] }));
  for (const trial of trials) networks[trial.network].trials.push(trial);
  Object.assign(state, { group: number, against: "bytes", precision: group.precision, metric: group.metric, cap: group.cap_mb, pins: [], filter: null });
  shown = new Set(networks.map((network) => network.id));
  forgetFrontier();
}

const getBytes = (network) => network.bytes[PRECISIONS.indexOf(state.precision)];
const readCost = (network, against) => (against === "bytes" ? getBytes(network) : network[against]);
function getCost(network) {
  const cost = readCost(network, state.against);
  return cost === null ? NaN : cost / COSTS[state.against].scale;
}
const getRate = (network) => network.rates[state.metric] || null;
const fits = (network) => getBytes(network) !== null && getBytes(network) <= state.cap * 1e6;

// The shown networks that no other dominates, by cost, including equal points, as in ffem_jax/analysis/pareto.py.
// Computed once for all parts of the page.
let standing = null;
const forgetFrontier = () => { standing = null; };
const listFrontier = () => (standing ??= findFrontier(networks.filter((network) => shown.has(network.id))));
function findFrontier(candidates) {
  const known = candidates.filter((n) => getRate(n) && fits(n) && Number.isFinite(getCost(n)));
  known.sort((a, b) => getCost(a) - getCost(b) || scoreOf(b) - scoreOf(a) || a.id - b.id);
  const front = [];
  for (const network of known) {
    const last = front[front.length - 1];
    const equal = last && getCost(last) === getCost(network) && getRate(last)[0] === getRate(network)[0];
    if (!last || scoreOf(network) > scoreOf(last) || equal) front.push(network);
  }
  return front;
}

// Round like Python: halfway values go to the even digit, whereas toFixed rounds away from 0. The commands and the page
// then show the same numbers.
function fixed(value, digits) {
  const text = value.toFixed(digits);
  const exact = value.toFixed(60).replace(/0+$/, ""); // enough decimals for a double
  const halfway = exact.split(".")[1]?.length === digits + 1 && exact.endsWith("5");
  if (!halfway || Number(text.slice(-1)) % 2 === 0) return text;
  return `${value < 0 ? "-" : ""}${(Math.abs(Number(text)) - 10 ** -digits).toFixed(digits)}`;
}

const overlap = (a, b) => Math.max(getRate(a)[1], getRate(b)[1]) <= Math.min(getRate(a)[2], getRate(b)[2]);
const percent = (rate, digits = 1) => fixed(100 * rate, digits);
const formatCost = (network, against = state.against) => {
  const { scale, unit, digits } = COSTS[against];
  const cost = readCost(network, against);
  return cost === null ? "not known" : `${fixed(cost / scale, digits)} ${unit}`;
};
const formatMegabytes = (network) => (getBytes(network) === null ? "?" : fixed(getBytes(network) / 1e6, 2));
const formatRate = (rate) => (rate ? `${percent(rate[0])} [${percent(rate[1])}, ${percent(rate[2])}]` : "–");
const countOf = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

// What the intervals allow to be said for the chosen cost, precision and cap.
function writeVerdict() {
  const visible = networks.filter((network) => shown.has(network.id));
  const trained = visible.filter((network) => getRate(network) && Number.isFinite(getCost(network)));
  const fitting = trained.filter(fits);
  const front = listFrontier();
  const limit = `${formatNumber(state.cap)} MB at ${state.precision}`;
  const start = `${fitting.length.toLocaleString("en")} of ${trained.length.toLocaleString("en")} trained networks ${fitting.length === 1 ? "fits" : "fit"} ${limit}`;
  if (!front.length) return `${start}.`;
  const { word, best: highest, lower, chance } = getMeasure();
  if (chance !== null && fitting.every((n) => (lower ? getRate(n)[2] >= chance : getRate(n)[1] <= chance)))
    return `${start}: all at chance (${percent(chance)} %), so they cannot be ranked. Train longer.`;
  const best = front[front.length - 1];
  const rivals = fitting.filter((network) => network !== best && overlap(network, best));
  const high = `${start}, ${front.length.toLocaleString("en")} on the frontier. The ${highest} ${word} is that of ${quoteCode(best.label)}, ${formatRate(getRate(best))} %`;
  if (fitting.length === 1) return `${high}; a single network is a point, not a trade-off.`;
  if (rivals.length) return `${high}; it is not established as the best, because the intervals of ${rivals.length.toLocaleString("en")} of the ${(fitting.length - 1).toLocaleString("en")} others overlap its own.`;
  return `${high}; its interval is ${lower ? "below" : "above"} those of all the others that fit.`;
}

const formatNumber = (value) => String(Number(value.toPrecision(4)));
