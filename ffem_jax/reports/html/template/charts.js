// The charts, as Vega-Lite specifications over the data of data.js.
const SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json";
const SHAPES = { none: "circle", eca: "square", se: "triangle-up" };
const MORE_SHAPES = ["diamond", "triangle-down", "cross", "triangle-right"];
const SMALL_ON_TOP_UP_TO = 60; // networks
const NEAR = 8; // pixels; marks closer than this cover each other
const WHISKERS_UP_TO = 60; // networks; with more, only the frontier and pinned networks have intervals
const LINES_UP_TO = 1500; // networks in parallel coordinates
const views = {};

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const listKinds = () => [...new Set(networks.map((n) => n.attention))].sort((a, b) => (b === "none") - (a === "none") || (b in SHAPES) - (a in SHAPES) || (a < b ? -1 : 1));
function styleKinds() {
  const spare = [...MORE_SHAPES];
  return listKinds().map((kind, i) => ({
    kind,
    name: kind === "none" ? "no attention" : kind.toUpperCase(),
    shape: SHAPES[kind] || spare.shift() || "stroke",
    color: css(kind === "none" ? "--kind-none" : `--kind-${{ eca: 1, se: 2 }[kind] || 3 + (i % 4)}`),
  }));
}

function makeConfig() {
  return {
    background: null,
    font: getComputedStyle(document.body).fontFamily,
    aria: false,
    view: { stroke: null },
    axis: { labelColor: css("--soft"), titleColor: css("--ink"), gridColor: css("--grid"), domainColor: css("--soft"), tickColor: css("--soft"), labelFontSize: 12, titleFontSize: 13, titleFontWeight: "normal", titlePadding: 8 },
  };
}

async function embed(id, spec, label, large = false) {
  const container = $(id);
  if (views[id]) views[id].finalize();
  container.setAttribute("role", "img");
  container.setAttribute("aria-label", label);
  const whole = { $schema: SCHEMA, config: makeConfig(), autosize: { type: "fit", contains: "padding" }, width: container.clientWidth, ...spec };
  const result = await vegaEmbed(container, whole, { renderer: large ? "canvas" : "svg", actions: false, tooltip: false });
  // The container's label describes the chart; reading out hundreds of marks would not help.
  for (const drawing of container.querySelectorAll("svg, canvas")) drawing.setAttribute("aria-hidden", "true");
  views[id] = result;
  return result.view;
}

// Charts below the fold are drawn when they are about to become visible.
const pending = new Map();
function drawPending(id) {
  const draw = pending.get(id);
  pending.delete(id);
  if (draw) draw();
}
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) drawPending(entry.target.id);
}, { rootMargin: "200px" });
// Print shows all charts.
window.addEventListener("beforeprint", () => [...pending.keys()].forEach(drawPending));
function drawWhenSeen(id, draw) {
  pending.set(id, draw);
  watcher.unobserve($(id));
  watcher.observe($(id));
}

// ------------------------------------------------------------------------------------------------ frontier

const chart = { domain: [0, 1], points: [], view: null };

function findDomain() {
  const placed = networks.filter((n) => Number.isFinite(getCost(n)));
  const trained = placed.filter(getRate).map(getCost);
  const costs = trained.length ? trained : placed.map(getCost);
  if (!costs.length) return [0, 1];
  let low = costs[0], high = costs[0];
  for (const cost of costs) { low = Math.min(low, cost); high = Math.max(high, cost); }
  if (state.against === "bytes") high = Math.max(high, Math.min(state.cap, 1.6 * high));
  // Networks far over the cap would compress the others into a corner.
  for (const n of placed) if (!getRate(n) && getCost(n) <= 1.5 * high) { high = Math.max(high, getCost(n)); low = Math.min(low, getCost(n)); }
  const margin = Math.max(0.06 * (high - low), 0.02 * high);
  return [Math.max(0, low - margin), high + margin];
}

// About six round numbers from `low` to `high`.
function listTicks(low, high) {
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20].find((size) => (high - low) / size <= 8) || 50;
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => Number(((first + i) * step).toFixed(1)));
}

// The chance level is drawn only if it is near: far from the intervals it would compress them.
function hasChance() {
  const { chance } = getMeasure();
  if (chance === null) return false;
  const rates = networks.filter(getRate).map(getRate);
  const least = Math.min(...rates.map((rate) => rate[1])), most = Math.max(...rates.map((rate) => rate[2]));
  return rates.length > 0 && chance >= least - 0.5 * (most - least) && chance <= most + 0.5 * (most - least);
}

function layOutPoints() {
  const visible = networks.filter((n) => shown.has(n.id) && Number.isFinite(getCost(n)));
  const front = new Set(listFrontier().map((n) => n.id));
  const points = visible.filter(getRate).map((n) => {
    const [rate, least, most] = getRate(n);
    return { id: n.id, kind: n.attention, x: getCost(n), rate: 100 * rate, low: 100 * least, high: 100 * most, front: front.has(n.id), fits: fits(n) };
  });
  // With few points the small marks are on top, so that the frontier's large ones do not hide them.
  const few = points.length <= SMALL_ON_TOP_UP_TO;
  points.sort((a, b) => (few ? b.front - a.front : a.front - b.front));
  const ghosts = visible.filter((n) => !getRate(n) && n.status === "over_cap" && getCost(n) <= chart.domain[1]).map((n) => ({ id: n.id, kind: n.attention, x: getCost(n) }));
  return { points, ghosts };
}

function makeFrontierData() {
  const { points, ghosts } = layOutPoints();
  chart.points = points;
  chart.ghosts = ghosts;
  const pinned = new Set(state.pins);
  const line = points.filter((p) => p.front).sort((a, b) => a.x - b.x || a.rate - b.rate);
  const end = state.against === "bytes" ? Math.min(state.cap, chart.domain[1]) : chart.domain[1];
  const steps = line.map((p) => ({ x: p.x, y: p.rate }));
  if (line.length) steps.push({ x: Math.max(end, line[line.length - 1].x), y: line[line.length - 1].rate });
  const few = points.length <= WHISKERS_UP_TO;
  const cap = state.against === "bytes" && state.cap >= chart.domain[0] && state.cap <= chart.domain[1] ? [{ x: state.cap }] : [];
  return {
    points,
    ghosts,
    steps,
    cap,
    chance: hasChance() ? [{ y: 100 * getMeasure().chance }] : [],
    whiskers: points.filter((p) => few || p.front || pinned.has(p.id)),
    pinned: points.filter((p) => pinned.has(p.id)),
    pinnedGhosts: ghosts.filter((p) => pinned.has(p.id)),
  };
}

async function drawFrontier() {
  const container = $("frontier-chart");
  const height = Math.max(320, Math.min(460, Math.round(0.55 * container.clientWidth)));
  chart.domain = findDomain();
  const kinds = styleKinds();
  const domain = kinds.map((k) => k.kind);
  const color = { field: "kind", type: "nominal", scale: { domain, range: kinds.map((k) => k.color) }, legend: null };
  const shape = { field: "kind", type: "nominal", scale: { domain, range: kinds.map((k) => k.shape) }, legend: null };
  const trained = networks.filter(getRate);
  const many = trained.length > 400;
  // From the lowest to the highest end of an interval, with a strip below for networks without an accuracy.
  let [least, most] = [100, 0];
  for (const n of trained) { least = Math.min(least, 100 * getRate(n)[1]); most = Math.max(most, 100 * getRate(n)[2]); }
  if (!trained.length) [least, most] = [0, 100];
  if (hasChance()) [least, most] = [Math.min(least, 100 * getMeasure().chance), Math.max(most, 100 * getMeasure().chance)];
  const hasGhosts = networks.some((n) => !getRate(n) && n.status === "over_cap");
  const room = Math.max(1, most - least);
  const floor = least - (hasGhosts ? 0.14 : 0.04) * room;
  const x = { field: "x", type: "quantitative", scale: { domain: chart.domain, nice: false, zero: false }, axis: { title: labelAxis(state.against), grid: false, tickCount: 6 } };
  const y = (field) => ({ field, type: "quantitative", scale: { domain: [floor, Math.min(100 + 0.02 * room, most + 0.04 * room)], nice: false, zero: false }, axis: { title: container.clientWidth < 500 ? null : getMeasure().axis, values: listTicks(least, Math.min(100, most)) } });
  // Margins are fixed, because the layout uses the width of the plot only.
  const padding = { left: container.clientWidth < 500 ? 38 : 58, right: 14, top: 10, bottom: 46 };
  chart.width = container.clientWidth - padding.left - padding.right;
  chart.height = height - padding.top - padding.bottom;
  chart.padding = padding;
  const sizes = many ? { front: 60, other: 16 } : { front: 110, other: 60 };
  const ring = { type: "point", shape: "circle", filled: false, size: 380, strokeWidth: 2, color: css("--accent") };
  const spec = {
    width: chart.width,
    height: chart.height,
    padding,
    autosize: "none",
    datasets: makeFrontierData(),
    layer: [
      { data: { name: "cap" }, mark: { type: "rule", strokeDash: [5, 4], color: css("--soft") }, encoding: { x } },
      { data: { name: "cap" }, mark: { type: "text", align: "right", baseline: "top", dx: -6, dy: 2, color: css("--soft"), fontSize: 12 }, encoding: { x, y: { value: 0 }, text: { value: "size limit" } } },
      { data: { name: "chance" }, mark: { type: "rule", strokeDash: [1, 3], color: css("--soft") }, encoding: { y: y("y") } },
      { data: { name: "chance" }, mark: { type: "text", align: "left", baseline: "bottom", dx: 6, dy: -2, color: css("--soft"), fontSize: 12 }, encoding: { x: { value: 0 }, y: y("y"), text: { value: "chance" } } },
      { data: { name: "steps" }, mark: { type: "line", interpolate: "step-after", color: css("--ink"), strokeWidth: 1.3 }, encoding: { x, y: y("y") } },
      { data: { name: "whiskers" }, mark: { type: "rule", strokeWidth: 1.3 }, encoding: { x, y: y("low"), y2: { field: "high" }, color, opacity: { condition: { test: "datum.front", value: 1 }, value: 0.35 } } },
      {
        data: { name: "points" },
        mark: { type: "point", strokeWidth: 1.6 },
        encoding: {
          x, y: y("rate"), shape, stroke: color,
          fill: { condition: { test: "datum.front", ...color }, value: css("--paper") },
          opacity: { condition: [{ test: "!datum.fits", value: 0.22 }, { test: "datum.front", value: 1 }], value: many ? 0.45 : 0.8 },
          size: { condition: { test: "datum.front", value: sizes.front }, value: sizes.other },
        },
      },
      { data: { name: "ghosts" }, mark: { type: "point", filled: false, strokeWidth: 1.2, opacity: 0.6, size: 55 }, encoding: { x, y: { value: chart.height - 10 }, shape, stroke: color } },
      { data: { name: "pinned" }, mark: ring, encoding: { x, y: y("rate") } },
      { data: { name: "pinnedGhosts" }, mark: ring, encoding: { x, y: { value: chart.height - 10 } } },
    ],
  };
  chart.view = await embed("frontier-chart", spec, describeFrontier(), trained.length > 400);
  listenToFrontier();
  drawLegend("legend", kinds, hasGhosts);
  writeFrontierTexts();
}

// After a change of filter, cap or pins the axes stay the same, so only data change.
async function renewFrontier() {
  if (!chart.view) return;
  const data = makeFrontierData();
  for (const [name, rows] of Object.entries(data)) chart.view.data(name, rows);
  $("frontier-chart").setAttribute("aria-label", describeFrontier());
  writeFrontierTexts();
  await chart.view.runAsync();
}

function describeFrontier() {
  const front = listFrontier();
  const listed = front.slice(-6).map((n) => `${n.label}, ${formatCost(n)}, ${formatRate(getRate(n))} %`).join("; ");
  return `Accuracy in percent against ${labelAxis(state.against)}, with 95 % intervals. ${countOf(front.length, "network")} on the frontier${listed ? `: ${listed}` : ""}. The table below lists the same networks.`;
}

function drawLegend(id, kinds, hasGhosts) {
  const symbol = (kind) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const path = document.createElementNS(svg.namespaceURI, "path");
    const d = { circle: "M8 3a5 5 0 1 0 .01 0z", square: "M3.5 3.5h9v9h-9z", "triangle-up": "M8 3l5.2 9.5H2.8z", diamond: "M8 2l6 6-6 6-6-6z", "triangle-down": "M8 13L2.8 3.5h10.4z", cross: "M6 2h4v4h4v4h-4v4H6v-4H2V6h4z", "triangle-right": "M13 8L3.5 13.2V2.8z", stroke: "M2 8h12" }[kind.shape];
    for (const [name, value] of Object.entries({ width: 16, height: 16, viewBox: "0 0 16 16", "aria-hidden": "true" })) svg.setAttribute(name, value);
    for (const [name, value] of Object.entries({ d, fill: "none", stroke: kind.color, "stroke-width": 1.8 })) path.setAttribute(name, value);
    svg.append(path);
    return svg;
  };
  const entries = kinds.length > 1 || kinds[0]?.kind !== "none" ? kinds.map((kind) => make("span", {}, symbol(kind), kind.name)) : [];
  $(id).replaceChildren(...entries, make("span", {}, "filled: on the frontier"), ...(hasGhosts ? [make("span", {}, "bottom row: over the limit, not trained")] : []));
}

function writeFrontierTexts() {
  $("verdict").replaceChildren(...makeText(writeVerdict()));
  const beyond = networks.filter((n) => shown.has(n.id) && !getRate(n) && n.status === "over_cap" && getCost(n) > chart.domain[1]).length;
  const unknown = networks.filter((n) => getRate(n) && readCost(n, state.against) === null).length;
  const { noun, measured_by: command } = COSTS[state.against];
  $("frontier-note").textContent = [
    chart.points.length > WHISKERS_UP_TO ? "Intervals are drawn for the frontier and for pinned networks; hover over a mark to see its own." : "",
    beyond ? `${countOf(beyond, "network")} over the limit ${beyond === 1 ? "is" : "are"} beyond the right edge.` : "",
    unknown ? `${countOf(unknown, "trained network")} without ${noun} in the records${command ? `: ${command} RECORDS measures it` : ""}.` : "",
  ].filter(Boolean).join(" ");
  const filtered = shown.size < networks.length;
  for (const line of document.querySelectorAll(".filtered")) {
    line.hidden = !filtered;
    line.firstElementChild.textContent = filtered ? `Filtered: ${shown.size.toLocaleString("en")} of ${countOf(networks.length, "network")}.` : "";
  }
}

// The position of a mark, in pixels of the chart's container.
function toPixels(point) {
  const y = "rate" in point ? chart.view.scale("y")(point.rate) : chart.height - 10;
  return [chart.padding.left + chart.view.scale("x")(point.x), chart.padding.top + y];
}

const findMark = (id) => [...chart.points, ...chart.ghosts].find((point) => point.id === id);
const locate = (id) => (findMark(id) ? toPixels(findMark(id)) : null);

// The names of the networks whose marks overlap this one.
function listCovered(mark) {
  const [x, y] = toPixels(mark);
  return [...chart.points, ...chart.ghosts].filter((other) => {
    const [left, top] = toPixels(other);
    return other !== mark && Math.hypot(left - x, top - y) < NEAR;
  }).map((other) => networks[other.id].label);
}

function findNearest(event) {
  const box = $("frontier-chart").getBoundingClientRect();
  let best = null, least = 22 ** 2;
  for (const point of [...chart.ghosts, ...chart.points]) {
    const [x, y] = toPixels(point);
    const distance = (x - event.clientX + box.left) ** 2 + (y - event.clientY + box.top) ** 2 - (point.front ? 9 : 0);
    if (distance <= least) [best, least] = [point.id, distance];
  }
  return best;
}

function listenToFrontier() {
  const container = $("frontier-chart");
  container.onpointermove = (event) => {
    const id = findNearest(event);
    container.style.cursor = id === null ? "" : "pointer";
    if (id === null) hideTip();
    else showTip(id, event);
  };
  container.onpointerleave = hideTip;
  container.onclick = (event) => {
    const id = findNearest(event);
    if (id !== null) togglePin(id);
  };
}

function showTip(id, event) {
  const network = networks[id];
  const mark = findMark(id);
  const covered = listCovered(mark);
  const also = covered.length > 3 ? `${covered.slice(0, 3).join("; ")}; ${covered.length - 3} more` : covered.join("; ");
  const lines = [
    make("strong", {}, network.label),
    ...describeNumbers(network).map(([name, value]) => make("div", {}, `${name}: ${value}`)),
    ...(covered.length ? [make("div", {}, `At the same place (see the table): ${also}`)] : []),
    make("div", {}, state.pins.includes(id) ? "Click to unpin" : "Click to pin"),
  ];
  const tip = $("tip");
  tip.replaceChildren(...lines);
  tip.hidden = false;
  const left = Math.min(event.pageX + 16, document.documentElement.clientWidth - tip.offsetWidth - 8);
  const above = event.clientY + tip.offsetHeight + 24 > window.innerHeight;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${event.pageY + (above ? -tip.offsetHeight - 12 : 16)}px`;
  const [x, y] = toPixels(mark);
  const ring = $("frontier-chart").querySelector(".ring") || $("frontier-chart").appendChild(make("div", { class: "ring" }));
  ring.style.left = `${x}px`;
  ring.style.top = `${y}px`;
}

function hideTip() {
  $("tip").hidden = true;
  $("frontier-chart").querySelector(".ring")?.remove();
}

// -------------------------------------------------------------------------------------------------- others

const CURVE_COLORS = ["--kind-1", "--kind-2", "--kind-3", "--kind-4", "--kind-6", "--kind-none"];
const CURVES = { validation: "Accuracy after each epoch", train: "Training accuracy", loss: "Training loss" };

// Mean, minimum and maximum over the trials of a network, by epoch.
function makeBand(network, name) {
  const byEpoch = new Map();
  for (const trial of network.trials) {
    const at = group.curves.at[trial.id];
    group.curves[name][trial.id].forEach((value, i) => {
      if (value === null) return;
      const epoch = at ? at[i] : i + 1;
      if (!byEpoch.has(epoch)) byEpoch.set(epoch, []);
      byEpoch.get(epoch).push(value / (name === "loss" ? 1000 : 10));
    });
  }
  return [...byEpoch].sort((a, b) => a[0] - b[0]).map(([epoch, values]) => ({
    epoch, network: network.label, mean: values.reduce((a, b) => a + b) / values.length, low: Math.min(...values), high: Math.max(...values),
  }));
}

async function drawCurves() {
  const chosen = state.pins.length ? state.pins.slice(-6).map((id) => networks[id]) : listFrontier().slice(-4);
  const rows = chosen.flatMap((network) => makeBand(network, state.curve));
  const note = state.curve === "validation" ? (group.validated ? "On images held out of training and never tested. " : "On the test images themselves: do not choose anything by these curves. ") : "";
  $("curves-note").textContent = `${note}${state.pins.length ? "For the pinned networks" : "For the frontier, because nothing is pinned"}; a band spans the range of a network's trials.`;
  const domain = chosen.map((n) => n.label);
  const range = CURVE_COLORS.map(css).slice(0, domain.length);
  $("curves-legend").replaceChildren(...chosen.map((n, i) => make("span", {}, make("i", { style: `width:18px;height:3px;background:${range[i]}` }), n.label)));
  if (!rows.length) {
    views["curves-chart"]?.finalize();
    $("curves-chart").replaceChildren(make("p", { class: "hint" }, "These trials have no such curve."));
    return;
  }
  const color = { field: "network", type: "nominal", scale: { domain, range }, legend: null };
  const x = { field: "epoch", type: "quantitative", axis: { title: "epoch", grid: false, tickMinStep: 1 }, scale: { nice: false } };
  const axis = { title: state.curve === "loss" ? "loss" : "%", tickCount: 6 };
  await embed("curves-chart", {
    height: 300,
    data: { values: rows },
    layer: [
      { mark: { type: "area", opacity: 0.18 }, encoding: { x, y: { field: "low", type: "quantitative", axis, scale: { zero: false } }, y2: { field: "high" }, color } },
      { mark: { type: "line", strokeWidth: 2 }, encoding: { x, y: { field: "mean", type: "quantitative" }, color } },
    ],
  }, `${CURVES[state.curve]} by epoch of ${domain.join(", ")}.`);
}

function drawLevels() {
  const rows = group.levels.map((row) => ({ ...row, mean: 100 * row.mean, low: 100 * row.low, high: 100 * row.high }));
  const domain = [Math.min(...rows.map((r) => r.low)), Math.max(...rows.map((r) => r.high))];
  const room = 0.06 * Math.max(1, domain[1] - domain[0]);
  const factors = [...new Set(rows.map((row) => row.factor))].filter((factor) => rows.filter((row) => row.factor === factor).length > 1);
  $("levels").replaceChildren(...factors.map((factor, i) => make("div", {}, make("h4", {}, factor), make("div", { class: "plot", id: `level-${i}` }))));
  factors.forEach((factor, i) => drawWhenSeen(`level-${i}`, () => {
    const own = rows.filter((row) => row.factor === factor);
    // The axis truncates long names. Truncated here, two names with the same beginning would share a row.
    const y = { field: "level", type: "nominal", sort: null, axis: { title: null, labelLimit: 150 } };
    const scale = { domain: [domain[0] - room, domain[1] + room], nice: false, zero: false };
    return embed(`level-${i}`, {
      height: 24 * own.length + 44,
      data: { values: own },
      layer: [
        { mark: { type: "rule", strokeWidth: 5, opacity: 0.3, color: css("--accent") }, encoding: { y, x: { field: "low", type: "quantitative", scale, axis: { title: `${getMeasure(group.metric).word}, %`, tickCount: 5 } }, x2: { field: "high" } } },
        { mark: { type: "point", filled: true, size: 70, color: css("--accent") }, encoding: { y, x: { field: "mean", type: "quantitative", scale } } },
      ],
    }, `Mean ${getMeasure(group.metric).word} by ${factor}: ${own.map((row) => `${row.level} ${row.mean.toFixed(1)} % over ${row.networks}`).join(", ")}.`);
  }));
}

async function drawCoordinates() {
  const kept = networks.filter((n) => shown.has(n.id) && getRate(n));
  if (!kept.length) {
    $("coordinates-note").textContent = "No network with an accuracy is shown.";
    views["coordinates-chart"]?.finalize();
    return $("coordinates-chart").replaceChildren();
  }
  const dimensions = group.factors.map((factor, i) => ({ name: factor.name, i, levels: factor.levels.filter((level) => networks.some((n) => n.settings[i] === level)) })).filter((d) => d.levels.length > 1 && !/\.name$/.test(d.name)).slice(0, 6);
  if (!dimensions.length && group.factors.length) dimensions.push({ name: group.factors[0].name, i: 0, levels: group.factors[0].levels });
  let lines = kept;
  if (kept.length > LINES_UP_TO) {
    // A sample spaced evenly by rank, including the best, small enough to draw.
    const ranked = [...kept].sort((a, b) => scoreOf(b) - scoreOf(a));
    lines = Array.from({ length: LINES_UP_TO }, (_, i) => ranked[Math.floor((i * ranked.length) / LINES_UP_TO)]);
  }
  $("coordinates-note").textContent = `Each line is a network; a stronger colour is better${lines.length < kept.length ? `; ${LINES_UP_TO.toLocaleString("en")} of ${kept.length.toLocaleString("en")}, spaced evenly by ${getMeasure().word}` : ""}. A line skips a setting that its network does not have.`;
  const rates = kept.map((n) => 100 * getRate(n)[0]);
  const costs = kept.map((n) => (getBytes(n) === null ? NaN : getBytes(n) / 1e6)).filter(Number.isFinite);
  const ends = (values) => values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
  const place = (value, [low, high]) => (high > low ? (value - low) / (high - low) : 0.5);
  const [costEnds, rateEnds] = [ends(costs), ends(rates)];
  const size = `MB ${state.precision}`, measured = `${getMeasure().word}, %`;
  const names = [...dimensions.map((d) => d.name), size, measured];
  const rows = [], labels = [];
  for (const network of lines) {
    const rate = 100 * getRate(network)[0];
    // Lines with the same level fan out slightly by accuracy, so that they do not hide each other.
    const fan = 0.05 * (place(rate, rateEnds) - 0.5);
    for (const d of dimensions) {
      const level = d.levels.indexOf(network.settings[d.i]);
      if (level >= 0) rows.push({ id: network.id, name: d.name, place: level / (d.levels.length - 1) + fan, rate });
    }
    if (getBytes(network) !== null) rows.push({ id: network.id, name: size, place: place(getBytes(network) / 1e6, costEnds), rate });
    rows.push({ id: network.id, name: measured, place: place(rate, rateEnds), rate });
  }
  for (const d of dimensions) {
    const listed = d.levels.length <= 10 ? d.levels : [d.levels[0], d.levels[d.levels.length - 1]];
    for (const level of listed) labels.push({ name: d.name, place: d.levels.indexOf(level) / (d.levels.length - 1), text: level.length > 16 ? `${level.slice(0, 15)}…` : level });
  }
  if (costs.length) costEnds.forEach((value, i) => labels.push({ name: size, place: i, text: value.toFixed(2) }));
  if (rates.length) rateEnds.forEach((value, i) => labels.push({ name: measured, place: i, text: value.toFixed(1) }));
  const x = { field: "name", type: "ordinal", sort: names, scale: { domain: names, padding: 0.25 }, axis: { title: null, orient: "top", labelAngle: 0, labelLimit: 130, domain: false, ticks: false, grid: true, labelColor: css("--ink"), labelExpr: "split(datum.label, '.')[length(split(datum.label, '.')) - 1]" } };
  const y = { field: "place", type: "quantitative", scale: { domain: [-0.06, 1.06], nice: false }, axis: null };
  await embed("coordinates-chart", {
    height: 340,
    layer: [
      { data: { values: rows }, mark: { type: "line", strokeWidth: lines.length > 200 ? 1 : 1.8, opacity: lines.length > 200 ? 0.25 : 0.8 }, encoding: { x, y, detail: { field: "id" }, color: { field: "rate", type: "quantitative", scale: { range: getMeasure().lower ? [css("--strong"), css("--faint")] : [css("--faint"), css("--strong")] }, legend: null } } },
      { data: { values: labels }, mark: { type: "text", dx: 8, align: "left", fontSize: 12, color: css("--ink"), stroke: css("--paper"), strokeWidth: 4, strokeOpacity: 0.85 }, encoding: { x, y, text: { field: "text" } } },
      { data: { values: labels }, mark: { type: "text", dx: 8, align: "left", fontSize: 12, color: css("--ink") }, encoding: { x, y, text: { field: "text" } } },
    ],
  }, `Parallel coordinates of ${countOf(lines.length, "network")}: ${names.join(", ")}.`, lines.length > 200);
}

async function drawProgress() {
  const rows = group.hypervolume.map(([number, share]) => ({ number, share: 100 * share }));
  $("progress-note").textContent = rows.length
    ? `The share of the rectangle of ${formatNumber(group.cap_mb)} MB (${group.precision}) and perfect ${getMeasure(group.metric).word} that the frontier covers (hypervolume), after each training in order of start. It falls if another seed or fold lowers a mean. After ${countOf(rows[rows.length - 1].number, "training")}: ${rows[rows.length - 1].share.toFixed(2)} %.`
    : "No training is done yet.";
  if (rows.length < 2) return $("progress-chart").replaceChildren();
  await embed("progress-chart", {
    height: 240,
    data: { values: rows },
    mark: { type: "line", interpolate: "step-after", strokeWidth: 2, color: css("--accent") },
    encoding: {
      x: { field: "number", type: "quantitative", axis: { title: "trainings done", grid: false, tickMinStep: 1 }, scale: { nice: false } },
      y: { field: "share", type: "quantitative", axis: { title: "covered, %", tickCount: 5 }, scale: { zero: false } },
    },
  }, $("progress-note").textContent);
}
