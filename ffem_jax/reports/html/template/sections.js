// Tiles, switches, pins, tables of the frontier and of comparisons, untrained networks.

function drawTiles() {
  const seconds = group.provenance.find(([name]) => name === "time");
  const trained = networks.filter((n) => getRate(n)).length;
  const tile = (name, value, small) => make("div", { class: small ? "small" : "" }, make("dt", {}, name), make("dd", {}, value));
  const counted = Object.entries(group.counts).filter(([status]) => status !== "done");
  $("tiles").replaceChildren(
    tile("networks trained", `${trained.toLocaleString("en")} of ${networks.length.toLocaleString("en")}`),
    tile("trials done", (group.counts.done || 0).toLocaleString("en")),
    ...counted.map(([status, number]) => tile(`trials ${STATUSES[status] || status}`, number.toLocaleString("en"))),
    ...(seconds ? [tile("time", seconds[1].split(" in all")[0])] : []),
  );
}

// A group of buttons, exactly one of which is pressed.
function drawSwitch(id, choices, chosen, choose) {
  $(id).replaceChildren(...choices.map(([value, name]) => make("button", {
    type: "button", "data-value": value, "aria-pressed": String(value === chosen),
    onclick: (event) => {
      for (const button of $(id).children) button.setAttribute("aria-pressed", String(button === event.currentTarget));
      choose(value);
    },
  }, name)));
}

const capitalize = (text) => text[0].toUpperCase() + text.slice(1);

function describeNumbers(network) {
  const rate = getRate(network);
  const listed = [];
  if (rate) {
    const runs = network.folds > 1 ? `${countOf(network.seeds, "seed")}, ${countOf(network.folds, "fold")}` : countOf(network.seeds, "seed");
    listed.push([capitalize(getMeasure().word), `${formatRate(rate)} %`], ["Tested", `${countOf(rate[4], group.measure === "verification" ? "pair" : "image")}, ${runs}${network.complete ? "" : " (folds are missing)"}`]);
    if (rate[3] >= 0) listed.push(["Between seeds", `${percent(rate[3])} points (standard deviation)`]);
  } else listed.push(["Accuracy", `none: ${STATUSES[network.status] || network.status}`]);
  listed.push([`Size, ${state.precision}`, `${formatMegabytes(network)} MB`]);
  for (const cost of Object.keys(COSTS)) if (cost !== "bytes" && readCost(network, cost) !== null) listed.push([COSTS[cost].title, cost === "params" ? network.params.toLocaleString("en") : formatCost(network, cost)]);
  return listed;
}

function togglePin(id) {
  state.pins = state.pins.includes(id) ? state.pins.filter((other) => other !== id) : [...state.pins, id];
  hideTip();
  renewFrontier();
  drawPins();
  drawFrontTable();
  drawTable();
  drawWhenSeen("curves-chart", drawCurves);
}

const makePin = (id) => make("button", {
  type: "button", "aria-pressed": String(state.pins.includes(id)), "data-pin": id, "aria-label": `${state.pins.includes(id) ? "Pinned" : "Pin"} ${networks[id].label}`,
  onclick: () => {
    // The tables are redrawn, so the focus is restored.
    const place = document.activeElement?.closest("table")?.id;
    togglePin(id);
    if (place) document.querySelector(`#${place} [data-pin="${id}"]`)?.focus();
  },
}, state.pins.includes(id) ? "Pinned" : "Pin");

function makeCommand(text, what) {
  const code = make("code", {}, text);
  const copy = make("button", { type: "button", "aria-label": `Copy the command: ${what}`, onclick: async () => {
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
    } catch {
      // A page opened from a file may not write to the clipboard: select the text for manual copying.
      getSelection().selectAllChildren(code);
      copy.textContent = "Selected";
    }
    setTimeout(() => { copy.textContent = "Copy"; }, 1500);
  } }, "Copy");
  return make("div", { class: "command" }, code, copy);
}

function makeStageTable(text) {
  const heads = ["", "blocks", "hidden", "out", "stride", "attention"];
  const rows = text.split("\n").map((line) => line.split("|"));
  const used = heads.map((_, i) => i === 0 || rows.some((row) => row[i]));
  const numeric = (i) => (i > 0 && i < 5 ? "number" : "");
  return make("table", {},
    make("thead", {}, make("tr", {}, ...heads.map((head, i) => used[i] && (head ? make("th", { scope: "col", class: numeric(i) }, head) : make("td", {}))).filter(Boolean))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((cell, i) => used[i] && make("td", { class: numeric(i) }, cell)).filter(Boolean)))));
}

function drawPins() {
  $("pin-hint").hidden = state.pins.length > 0;
  $("pins").replaceChildren(...state.pins.map((id) => {
    const network = networks[id];
    const done = network.trials.find((trial) => trial.status === "done");
    const run = group.words[(done || network.trials[0]).run];
    const train = `ffem train ${network.train.map((i) => group.words[i]).join(" ")} ${run}`;
    const stages = group.words[network.stages];
    const folders = network.trials.filter((trial) => trial.status === "done" && trial.folder);
    return make("article", { class: "card", "data-network": id },
      make("header", {}, make("h3", {}, network.label), make("button", { type: "button", class: "quiet", "aria-label": `Unpin ${network.label}`, onclick: () => togglePin(id) }, "Unpin")),
      make("div", { class: "columns" },
        make("div", {},
          make("dl", {}, ...describeNumbers(network).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])),
          make("dl", {}, ...group.factors.flatMap((factor, i) => (network.settings[i] === null ? [] : [make("dt", {}, factor.name), make("dd", {}, network.settings[i])])))),
        make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Stage table of ${network.label}` }, stages ? makeStageTable(stages) : make("p", { class: "hint" }, "This version cannot build this network, so there is no stage table."))),
      make("p", { class: "hint" }, `Train it again (one trial${network.trials.length > 1 ? ` of ${network.trials.length}; the others differ in seed or fold` : ""}):`),
      makeCommand(train, `train ${network.label}`),
      ...(folders.length ? [
        make("p", { class: "hint" }, "Export it, where SWEEP is the folder of the sweep:"),
        makeCommand(`ffem export SWEEP/${folders[0].folder} --format tfjs --dtype float16 --out phone`, `export ${network.label}`),
      ] : []));
  }));
}

function drawFrontTable() {
  const front = listFrontier();
  const heads = [["", ""], ["network", ""], [COSTS[state.against].unit, "number"], ...(state.against === "bytes" ? [] : [[`MB ${state.precision}`, "number"]]), [`${getMeasure().word}, % [95 %]`, "number"], ["seeds", "number"]];
  $("front-table").replaceChildren(
    make("thead", {}, make("tr", {}, ...heads.map(([head, kind]) => (head ? make("th", { scope: "col", class: kind }, head) : make("td", {}))))),
    make("tbody", {}, ...front.map((n) => make("tr", { class: state.pins.includes(n.id) ? "pinned" : "" },
      make("td", {}, makePin(n.id)), make("td", {}, n.label),
      make("td", { class: "number" }, fixed(getCost(n), COSTS[state.against].digits)),
      ...(state.against === "bytes" ? [] : [make("td", { class: "number" }, formatMegabytes(n))]),
      make("td", { class: "number" }, formatRate(getRate(n))), make("td", { class: "number" }, String(n.seeds))))),
  );
}

function drawComparison() {
  const entry = group.comparisons[Number($("factor").value)] || group.comparisons[0];
  if (!entry) return;
  const overall = entry.rows.filter((row) => row.overall || !entry.rows.some((other) => other.overall && other.first === row.first && other.second === row.second));
  const table = make("table", {},
    make("thead", {}, make("tr", {}, ...["level", "against", "where"].map((h) => make("th", { scope: "col" }, h)), ...["points [95 %]", "p, corrected", "pairs", "images"].map((h) => make("th", { scope: "col", class: "number" }, h)), make("th", { scope: "col" }, "significant"))),
    make("tbody", {}, ...entry.rows.map((row) => make("tr", {},
      make("td", {}, row.second), make("td", {}, row.first), make("td", {}, row.context),
      make("td", { class: "number" }, row.points),
      make("td", { class: "number" }, row.p), make("td", { class: "number" }, String(row.pairs)), make("td", { class: "number" }, String(row.images)),
      make("td", {}, row.shown ? (row.better ? "better" : "worse") : "no")))));
  $("comparison").replaceChildren(
    ...(entry.rows.length ? [make("ul", { class: "sentences" }, ...overall.slice(0, 12).map((row) => make("li", {}, ...makeText(row.sentence)))), make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Paired comparison of ${entry.factor}` }, table)] : []),
    ...entry.notes.map((note) => make("p", { class: "hint" }, note)));
}

function drawSettings() {
  $("settings-body").hidden = group.factors.length === 0;
  $("settings").querySelector("h2").textContent = group.factors.length ? "What each setting does" : "What each setting does: nothing varies here";
  drawLevels();
  $("factor").replaceChildren(...group.comparisons.map((entry, i) => make("option", { value: String(i) }, `${entry.factor}${entry.rows.length ? "" : " (no pairs)"}`)));
  const first = group.comparisons.findIndex((entry) => entry.rows.length);
  $("factor").value = String(Math.max(0, first));
  drawComparison();
}

const LISTED_UNTRAINED = 40;
function drawUntrained() {
  const byStatus = new Map();
  for (const trial of trials) if (trial.status !== "done") byStatus.set(trial.status, [...(byStatus.get(trial.status) || []), trial]);
  if (!byStatus.size) return $("untrained-body").replaceChildren(make("p", {}, "None: every recorded trial has an accuracy."));
  const parts = [];
  for (const [status, own] of byStatus) {
    parts.push(make("h3", {}, `${STATUSES[status] || status}: ${countOf(own.length, "trial")}`));
    const because = status === "over_cap" ? "Refused before training because of their size or MACs." : status === "pruned" ? "Stopped before their last epoch." : "";
    if (because) parts.push(make("p", { class: "hint" }, because));
    const rows = own.slice(0, LISTED_UNTRAINED).map((trial) => {
      const network = networks[trial.network];
      const reason = trial.error || (status === "over_cap" ? `${formatMegabytes(network)} MB at ${state.precision}` : status === "pruned" ? `after ${countOf(trial.epochs, "epoch")}` : "no message");
      return make("tr", {}, make("td", {}, network.label), make("td", {}, `seed ${trial.seed}${trial.fold ? `, fold ${trial.fold}` : ""}`), make("td", { class: "error" }, reason));
    });
    parts.push(make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Trials ${STATUSES[status] || status}` }, make("table", {}, make("tbody", {}, ...rows))));
    if (own.length > LISTED_UNTRAINED) parts.push(make("p", { class: "hint" }, `${own.length - LISTED_UNTRAINED} more are in the table of all trials.`));
  }
  $("untrained-body").replaceChildren(...parts);
}
