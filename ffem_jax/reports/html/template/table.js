// The table of all trials: filtered, sorted, paged, and as CSV.
const ROWS_A_PAGE = 50;
const MOST_CHOICES = 24; // maximum number of levels of a setting with a drop-down list
const table = { rows: [], ordered: [], sort: "network", descending: false, page: 0, columns: [] };

// A trial's value of the chosen measure and the ends of its interval; null if the record has none.
function readTrial(trial, metric = state.metric) {
  if (metric in trial) return [trial[metric], trial[`${metric}_low`] ?? null, trial[`${metric}_high`] ?? null];
  return trial.others[metric] || [null, null, null];
}

function listColumns() {
  const settings = group.factors.map((factor, i) => ({ name: factor.name.split(".").pop().replaceAll("_", " "), csv: factor.name, get: (t) => networks[t.network].settings[i] ?? "", text: true })).slice(0, 6);
  const folds = trials.some((t) => t.fold);
  return [
    { name: "network", csv: "network", get: (t) => networks[t.network].label, text: true },
    ...settings,
    { name: "status", csv: "status", get: (t) => STATUSES[t.status] || t.status, text: true },
    { name: "seed", csv: "seed", get: (t) => t.seed },
    ...(folds ? [{ name: "fold", csv: "fold", get: (t) => t.fold }] : []),
    { name: `${getMeasure().word}, % [95 %]`, csv: "accuracy", get: (t) => (t.status === "done" ? readTrial(t)[0] : null), show: (t) => (t.status !== "done" || readTrial(t)[0] === null ? "–" : readTrial(t)[1] === null ? percent(readTrial(t)[0]) : formatRate(readTrial(t))) },
    { name: `MB ${state.precision}`, csv: `bytes_${state.precision}`, get: (t) => getBytes(networks[t.network]), show: (t) => formatMegabytes(networks[t.network]) },
    { name: "parameters", csv: "params", get: (t) => networks[t.network].params, show: (t) => networks[t.network].params?.toLocaleString("en") ?? "?" },
    { name: "MACs", csv: "macs", get: (t) => networks[t.network].macs, show: (t) => networks[t.network].macs?.toLocaleString("en") ?? "?" },
    { name: "epochs", csv: "epochs", get: (t) => t.epochs },
    { name: "minutes", csv: "wall_seconds", get: (t) => t.wall_seconds, show: (t) => (t.wall_seconds === null ? "–" : (t.wall_seconds / 60).toFixed(1)) },
    { name: "trial", csv: "trial_key", get: (t) => t.key, text: true, key: true },
  ];
}

function drawFilters() {
  const update = debounce(applyFilter);
  const choices = group.factors.map((factor, i) => ({ factor, i })).filter(({ factor }) => factor.levels.length <= MOST_CHOICES).slice(0, 6);
  const select = (name, id, options) => make("label", {}, name, make("select", { id, onchange: applyFilter }, make("option", { value: "" }, "any"), ...options.map(([value, text]) => make("option", { value }, text))));
  $("filters").replaceChildren(
    make("label", {}, "Search", make("input", { type: "search", id: "filter-text", placeholder: "network, trial, error", oninput: update })),
    select("Status", "filter-status", Object.keys(group.counts).map((status) => [status, STATUSES[status] || status])),
    ...choices.map(({ factor, i }) => select(factor.name.split(".").pop().replaceAll("_", " "), `filter-${i}`, factor.levels.map((level) => [level, level]))),
    make("label", {}, "Accuracy from, %", make("input", { type: "number", id: "filter-rate", min: "0", max: "100", step: "any", oninput: update })),
    make("label", { class: "check" }, make("input", { type: "checkbox", id: "filter-fits", onchange: applyFilter }), "fits the limit"),
    make("button", { type: "button", class: "clear quiet", onclick: clearFilter }, "Show all"),
  );
  state.filter = () => {
    const words = $("filter-text").value.toLowerCase().split(/\s+/).filter(Boolean);
    const status = $("filter-status").value;
    const chosen = choices.map(({ i }) => [i, $(`filter-${i}`).value]).filter(([, value]) => value !== "");
    const rate = $("filter-rate").value === "" ? null : Number($("filter-rate").value) / 100;
    const small = $("filter-fits").checked;
    return (trial) => {
      const network = networks[trial.network];
      if (status && trial.status !== status) return false;
      for (const [i, value] of chosen) if (network.settings[i] !== value) return false;
      if (small && !fits(network)) return false;
      if (rate !== null && !(getRate(network) && getRate(network)[0] >= rate)) return false;
      if (!words.length) return true;
      trial.text ??= `${network.label} ${trial.key} ${trial.error} seed ${trial.seed} ${STATUSES[trial.status] || trial.status} ${network.settings.join(" ")}`.toLowerCase();
      return words.every((word) => trial.text.includes(word));
    };
  };
}

function debounce(action) {
  let timer;
  return () => { clearTimeout(timer); timer = setTimeout(action, 80); };
}

function clearFilter() {
  for (const input of $("filters").querySelectorAll("input, select")) {
    if (input.type === "checkbox") input.checked = false;
    else input.value = "";
  }
  applyFilter();
}

// Update the rows that pass the filter and their networks, then the visible charts.
function applyFilter() {
  selectRows();
  drawTable();
  drawFrontTable();
  const drawn = renewFrontier();
  drawWhenSeen("coordinates-chart", drawCoordinates);
  if (!state.pins.length) drawWhenSeen("curves-chart", drawCurves);
  return drawn;
}

function selectRows() {
  table.rows = table.ordered.filter(state.filter());
  shown = new Set(table.rows.map((trial) => trial.network));
  forgetFrontier();
  table.page = 0;
}

// Sort all trials once, so that filtering does not sort again.
function sortRows() {
  const column = table.columns.find((c) => c.csv === table.sort) || table.columns[0];
  const collator = new Intl.Collator("en", { numeric: true });
  const sign = table.descending ? -1 : 1;
  const keyed = trials.map((trial) => [column.get(trial), trial]);
  // Unknown values come last in either direction.
  keyed.sort(([a, s], [b, t]) => {
    if (a === null || b === null) return (a === null) - (b === null) || s.id - t.id;
    return sign * (typeof a === "string" || typeof b === "string" ? collator.compare(String(a), String(b)) : a - b) || s.id - t.id;
  });
  table.ordered = keyed.map(([, trial]) => trial);
}

function drawTable() {
  const pages = Math.max(1, Math.ceil(table.rows.length / ROWS_A_PAGE));
  table.page = Math.min(table.page, pages - 1);
  const rows = table.rows.slice(table.page * ROWS_A_PAGE, (table.page + 1) * ROWS_A_PAGE);
  const heads = table.columns.map((column) => make("th", { scope: "col", class: column.text ? "" : "number", "aria-sort": table.sort === column.csv ? (table.descending ? "descending" : "ascending") : "none" },
    make("button", { type: "button", "data-sort": column.csv, onclick: () => {
      table.descending = table.sort === column.csv ? !table.descending : !column.text;
      table.sort = column.csv;
      sortRows();
      selectRows();
      drawTable();
      document.querySelector(`[data-sort="${CSS.escape(column.csv)}"]`).focus();
    } }, column.name)));
  $("trial-table").replaceChildren(
    make("thead", {}, make("tr", {}, make("td", {}), ...heads)),
    make("tbody", {}, ...rows.map((trial) => make("tr", { class: state.pins.includes(trial.network) ? "pinned" : "" },
      make("td", {}, makePin(trial.network)),
      ...table.columns.map((column) => make("td", { class: `${column.text ? "" : "number"}${column.key ? "key" : ""}`, title: column.csv === "status" && trial.error ? trial.error : null }, String(column.show ? column.show(trial) : (column.get(trial) ?? "–"))))))),
  );
  $("table-count").textContent = `${table.rows.length.toLocaleString("en")} of ${countOf(trials.length, "trial")}`;
  $("page-number").textContent = `Page ${table.page + 1} of ${pages.toLocaleString("en")}`;
  $("previous").disabled = table.page === 0;
  $("next").disabled = table.page >= pages - 1;
}

// A spreadsheet would execute a cell that begins like a formula.
function quoteCell(value) {
  let text = value === null || value === undefined ? "" : String(value);
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function makeCsv() {
  const settings = group.factors.map((factor, i) => [factor.name, (t) => networks[t.network].settings[i]]);
  const columns = [
    ["trial_key", (t) => t.key], ["network", (t) => networks[t.network].label], ["status", (t) => t.status], ["seed", (t) => t.seed], ["fold", (t) => t.fold],
    ...settings,
    ...["accuracy", "accuracy_low", "accuracy_high", "accuracy_gallery"].map((name) => [name, (t) => t[name]]),
    ...Object.keys(group.measures).filter((name) => trials.some((t) => name in t.others)).flatMap((name) => ["", "_low", "_high"].map((end, i) => [name + end, (t) => readTrial(t, name)[i]])),
    ...PRECISIONS.map((name, i) => [`bytes_${name}`, (t) => networks[t.network].bytes[i]]),
    ...Object.keys(COSTS).filter((name) => name !== "bytes").map((name) => [name, (t) => networks[t.network][name]]),
    ...["epochs", "wall_seconds", "images_per_second", "started_at", "error"].map((name) => [name, (t) => t[name]]),
  ];
  return [columns.map(([name]) => quoteCell(name)).join(","), ...table.rows.map((trial) => columns.map(([, get]) => quoteCell(get(trial))).join(","))].join("\r\n") + "\r\n";
}

function downloadCsv() {
  const link = make("a", { href: URL.createObjectURL(new Blob(["\ufeff", makeCsv()], { type: "text/csv" })), download: "trials.csv" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
