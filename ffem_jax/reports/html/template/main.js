// Entry point: the first drawing, and the redrawing after each control.

function drawAll() {
  table.columns = listColumns();
  drawFilters();
  sortRows();
  selectRows();
  drawTiles();
  const has = (cost) => networks.some((n) => (cost === "bytes" ? n.bytes.some((b) => b !== null) : n[cost] !== null));
  drawSwitch("against", Object.keys(COSTS).filter(has).map((cost) => [cost, COSTS[cost].title]), state.against, (value) => { state.against = value; drawCosts(); });
  drawSwitch("precision", PRECISIONS.map((p) => [p, p]), state.precision, (value) => { state.precision = value; setCapRange(); drawCosts(); });
  const metrics = Object.keys(group.measures).filter((metric) => networks.some((n) => n.rates[metric]));
  $("metric-field").hidden = metrics.length < 2;
  drawSwitch("metric", metrics.map((metric) => [metric, getMeasure(metric).title]), state.metric, (value) => { state.metric = value; forgetFrontier(); drawCosts(); });
  const curves = Object.keys(CURVES).filter((name) => group.curves[name].some((curve) => curve.length));
  if (!curves.includes(state.curve)) state.curve = curves[0] || "loss";
  drawSwitch("curve", curves.map((name) => [name, CURVES[name]]), state.curve, (value) => { state.curve = value; drawCurves(); });
  tellMeasure();
  setCapRange();
  drawPins();
  drawFrontTable();
  drawTable();
  drawSettings();
  drawUntrained();
  drawWhenSeen("curves-chart", drawCurves);
  drawWhenSeen("coordinates-chart", drawCoordinates);
  drawWhenSeen("progress-chart", drawProgress);
  return drawFrontier();
}

const tellMeasure = () => { $("measure-told").textContent = getMeasure().told; };

// Redraw after a change of cost, precision or metric, which changes axes and columns.
function drawCosts() {
  table.columns = listColumns();
  if (!table.columns.some((column) => column.csv === table.sort)) table.sort = "network";
  sortRows();
  selectRows();
  tellMeasure();
  drawFrontier();
  drawFrontTable();
  drawTable();
  drawPins();
  drawUntrained();
  drawTiles();
  drawWhenSeen("coordinates-chart", drawCoordinates);
  if (!state.pins.length) drawWhenSeen("curves-chart", drawCurves);
}

function setCapRange() {
  const sizes = networks.map(getBytes).filter((size) => size !== null).map((size) => size / 1e6);
  const most = sizes.reduce((a, b) => Math.max(a, b), state.cap);
  $("cap-slider").max = String(Math.ceil(1.1 * Math.min(most, 3 * Math.max(state.cap, ...networks.filter(getRate).map((n) => getBytes(n) / 1e6)))));
  $("cap-slider").step = String(Number($("cap-slider").max) / 400);
  $("cap-slider").value = String(state.cap);
  $("cap").value = String(formatNumber(state.cap));
}

let moving = false;
function moveCap(value, from) {
  if (!(value > 0)) return;
  state.cap = value;
  forgetFrontier();
  if (from !== "cap") $("cap").value = String(formatNumber(value));
  if (from !== "cap-slider") $("cap-slider").value = String(value);
  if (moving) return;
  moving = true;
  requestAnimationFrame(() => {
    moving = false;
    if ($("filter-fits").checked) applyFilter();
    else {
      renewFrontier();
      drawFrontTable();
    }
  });
}

function setTheme(theme, redraw) {
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = theme === "dark" ? "Light" : "Dark";
  $("theme").setAttribute("aria-label", `Switch to ${theme === "dark" ? "light" : "dark"} colours`);
  if (!redraw) return;
  drawFrontier();
  drawLevels();
  drawWhenSeen("curves-chart", drawCurves);
  drawWhenSeen("coordinates-chart", drawCoordinates);
  drawWhenSeen("progress-chart", drawProgress);
}

const dark = matchMedia("(prefers-color-scheme: dark)");
setTheme(dark.matches ? "dark" : "light", false);
dark.addEventListener("change", () => setTheme(dark.matches ? "dark" : "light", true));
$("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark", true));
$("cap-slider").addEventListener("input", (event) => moveCap(Number(event.target.value), "cap-slider"));
$("cap").addEventListener("input", (event) => moveCap(Number(event.target.value), "cap"));
$("factor").addEventListener("change", drawComparison);
$("csv").addEventListener("click", downloadCsv);
$("previous").addEventListener("click", () => { table.page -= 1; drawTable(); });
$("next").addEventListener("click", () => { table.page += 1; drawTable(); });
for (const button of document.querySelectorAll(".filtered .clear")) button.addEventListener("click", clearFilter);
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
let width = window.innerWidth;
window.addEventListener("resize", debounce(() => {
  if (window.innerWidth === width) return; // ignore height changes, such as a phone's address bar
  width = window.innerWidth;
  setTheme(document.documentElement.dataset.theme, true);
}));

if (payload.groups.length > 1) {
  $("groups").hidden = false;
  drawSwitch("groups", payload.groups.map((one, i) => [i, one.title]), 0, (value) => { loadGroup(value); drawAll(); });
}
// The page of a running sweep reloads itself, unless the reader has pinned or filtered something.
if (document.body.dataset.running) setInterval(() => { if (!state.pins.length && shown.size === networks.length) location.reload(); }, 60000);
loadGroup(0);
drawAll().then(() => {
  // For tests: the position of a mark, and the time of the first drawing.
  window.ffemReport = { locate, applyFilter, ready: performance.now() };
  document.body.dataset.ready = "true";
});
