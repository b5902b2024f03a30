// The page: what its controls say, the plan of that, and how it is shown.

const byId = (id) => document.getElementById(id);
const model = prepareModel(JSON.parse(byId("model").textContent));
const FAMILY_LABELS = { ...model.families, none: "Masks only" };
const SCOPE_LABELS = { matrices: "matrices", layers: "layers", model: "whole model" };
const SCOPE_MEANINGS = {
  matrices: "the transformed layers alone",
  layers: "every layer with weights",
  model: "the whole forward pass, products of activations included",
};
const DISTRIBUTION_LABELS = { uniform: "uniform", er: "ER", erk: "ERK" };
const DISTRIBUTION_MEANINGS = {
  uniform: "the same density in every layer",
  er: "denser where inputs and outputs are few",
  erk: "as ER, with kernel sizes",
};
const denseMacs =
  total(model.layers.map((l) => macsOf(l.dense, weightsOf(l.dense)))) + total(model.products.map((p) => p.macs));

const state = {
  family: model.refusal ? "parallel" : "wide",
  sparsity: ratio(3n, 4n),
  scope: "layers",
  distribution: "uniform",
  keepFirst: true,
  keepLast: true,
  roundTo: ONE,
};

// --- numbers as people read them -------------------------------------------------------------------------------

const NARROW = "\u202f";
const count = (value) => String(value).replace(/\B(?=(\d{3})+$)/g, NARROW);
const short = (value) => {
  const prefixes = ["", "k", "M", "G", "T", "P", "E"];
  const power = Math.min(6, Math.max(0, Math.floor(Math.log10(Math.max(1, value)) / 3)));
  return `${+(value / 1000 ** power).toPrecision(4)}${power ? NARROW + prefixes[power] : ""}`;
};
const decimal = (value, digits = 6) => float(value).toFixed(digits);
const signed = (value) => (value > 0n ? `+${count(value)}` : value < 0n ? `−${count(-value)}` : "0");
const sparsityText = ({ n, d }) => {
  const millionths = n * 1000000n;
  return millionths % d ? `${n}/${d}` : String(Number(millionths / d) / 1e6);
};

// --- small helpers for elements -----------------------------------------------------------------------------------

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function drawn(tag, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  if (text !== undefined) made.textContent = text;
  return made;
}

const cell = (text, className = "") => element("td", { className }, text);
const heading = (text) =>
  element("th", { className: text.startsWith(">") ? "number" : "" }, text.replace(/^>/, ""));
const headRow = (...texts) => element("thead", {}, element("tr", {}, ...texts.map(heading)));

// --- controls ----------------------------------------------------------------------------------------------------

function addChoices(name, labels, meanings = {}) {
  byId(name).append(
    ...Object.entries(labels).map(([value, label]) => {
      const input = element("input", { type: "radio", name, value });
      input.addEventListener("change", () => change({ [name]: value }));
      return element("label", { title: meanings[value] || "" }, input, element("span", {}, label));
    }),
  );
}

function showControls() {
  for (const name of ["family", "distribution", "scope"]) {
    for (const input of document.getElementsByName(name)) input.checked = input.value === state[name];
  }
  byId("slider").value = Math.round(float(state.sparsity) * 100);
  if (document.activeElement !== byId("sparsity")) byId("sparsity").value = sparsityText(state.sparsity);
  byId("keepFirst").checked = state.keepFirst;
  byId("keepLast").checked = state.keepLast;
  const offered = [...byId("roundTo").options].map((option) => option.value);
  if (!offered.includes(String(state.roundTo))) byId("roundTo").append(element("option", {}, String(state.roundTo)));
  byId("roundTo").value = String(state.roundTo);
  byId("rounding").hidden = !FAMILIES[state.family].widens;
}

function change(settings) {
  Object.assign(state, settings);
  showControls();
  history.replaceState(null, "", `#${new URLSearchParams(settingsOf(state))}`);
  requestAnimationFrame(show);
}

function listen() {
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("slider").addEventListener("input", (event) => change({ sparsity: ratio(BigInt(event.target.value), 100n) }));
  byId("sparsity").addEventListener("input", (event) => {
    const sparsity = sparsityIn(event.target.value);
    byId("wrong").hidden = sparsity !== null;
    if (sparsity) change({ sparsity });
  });
  byId("sparsity").addEventListener("change", () => {
    byId("wrong").hidden = true;
    byId("sparsity").blur();
    showControls();
  });
  for (const name of ["keepFirst", "keepLast"]) {
    byId(name).addEventListener("change", (event) => change({ [name]: event.target.checked }));
  }
  byId("roundTo").addEventListener("change", (event) => change({ roundTo: BigInt(event.target.value) }));
  byId("filter").addEventListener("input", filterLayers);
  byId("copy").addEventListener("click", copyCommand);
  byId("download").addEventListener("click", downloadRequest);
  byId("file").addEventListener("change", openFile);
  addEventListener("hashchange", () => change(settingsIn(location.hash)));
}

// --- settings as text: in the address, on the command line, in a file of settings --------------------------------------

const keptDense = (request) => [
  ...(request.keepFirst ? ["first"] : []),
  ...(request.keepLast ? ["last"] : []),
  ...(request.keepFirst || request.keepLast ? [] : ["none"]),
];
const roundTo = (request) => (FAMILIES[request.family].widens ? request.roundTo : ONE);
const settingsOf = (request) => ({
  family: request.family,
  sparsity: sparsityText(request.sparsity),
  distribution: request.distribution,
  scope: request.scope,
  keep_dense: keptDense(request).join(),
  round_to: String(request.roundTo),
});

/** The settings that an address names and the page knows. */
function settingsIn(hash) {
  const found = {};
  const named = Object.fromEntries(new URLSearchParams(hash.replace(/^#/, "")));
  if (named.family in FAMILIES) found.family = named.family;
  if (named.distribution in DISTRIBUTION_LABELS) found.distribution = named.distribution;
  if (SCOPES.includes(named.scope)) found.scope = named.scope;
  if (sparsityIn(named.sparsity || "")) found.sparsity = sparsityIn(named.sparsity);
  if (/^[1-9]\d{0,5}$/.test(named.round_to || "")) found.roundTo = BigInt(named.round_to);
  if (named.keep_dense !== undefined) {
    const kept = named.keep_dense.split(",");
    Object.assign(found, { keepFirst: kept.includes("first"), keepLast: kept.includes("last") });
  }
  return found;
}

const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);

function commandOf(request) {
  const inputs = model.ownInputs ? [] : model.inputs.map((one) => `--input ${quoted(one)}`);
  return [
    `iftplan plan ${quoted(model.source || "MODEL")}`,
    ...inputs,
    `--transform ${request.family}`,
    `--sparsity ${sparsityText(request.sparsity)}`,
    `--scope ${request.scope}`,
    `--distribution ${request.distribution}`,
    `--keep-dense ${keptDense(request).join()}`,
    ...(model.heads === "size" ? ["--heads size"] : []),
    ...(roundTo(request) > ONE ? [`--round-to ${request.roundTo}`] : []),
    "-o plan.json",
  ].join(" ");
}

/** Whether the settings of a run say all of a request; else the run is of the plan's file. */
const isSetting = () => model.heads !== "size" && (model.ownInputs || model.inputs.length === 1);

const requestText = (request) => (isSetting() ? settingsText(request) : planText(request));

const planText = (request) =>
  [
    `# The plan of ${model.source.replace(/[\r\n]/g, " ")} that was chosen on its page. Make it, then train it: iftplan train --config request.toml`,
    `# ${commandOf(request).replace(/[\r\n]/g, " ")}`,
    "[plan]",
    'file = "plan.json"',
    "",
  ].join("\n");

const settingsText = (request) =>
  [
    `# The plan of ${model.source.replace(/[\r\n]/g, " ")} that was chosen on its page. Train it: iftplan train --config request.toml`,
    "[plan]",
    `model = ${JSON.stringify(model.source)}`,
    ...(model.ownInputs ? [] : [`input = ${JSON.stringify(model.inputs[0])}`]),
    `transform = "${request.family}"`,
    `sparsity = "${sparsityText(request.sparsity)}"`,
    `scope = "${request.scope}"`,
    `distribution = "${request.distribution}"`,
    `keep_dense = [${keptDense(request).map((name) => `"${name}"`).join(", ")}]`,
    `round_to = ${roundTo(request)}`,
    "",
  ].join("\n");

async function copyCommand() {
  const text = byId("command").textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    getSelection().selectAllChildren(byId("command")); // where pages of files may not write to the clipboard
    document.execCommand("copy");
  }
  byId("told").textContent = "Copied.";
}

function downloadRequest() {
  const link = element("a", {
    href: URL.createObjectURL(new Blob([requestText(state)], { type: "application/toml" })),
    download: "request.toml",
  });
  link.click();
  URL.revokeObjectURL(link.href);
  byId("told").textContent = "Written: request.toml, for iftplan train --config request.toml.";
}

// --- the plan ----------------------------------------------------------------------------------------------------

function headline(plan) {
  const k = plan.multiplier.toFixed(3);
  const masked = plan.layers.filter((layer) => layer.maskable);
  const kept = Number(total(masked.map((layer) => layer.nnz))) / Number(most(ONE, plan.maskableWeights));
  const zeros = masked.length ? `, ${((1 - kept) * 100).toFixed(1)} % of the masked weights zero` : "";
  const some = (key) => [...new Set(plan.layers.filter((l) => l.structure[key] !== undefined).map((l) => l.structure[key]))];
  const range = (values) => {
    const [low, high] = [values.reduce(least), values.reduce(most)];
    return low === high ? count(low) : `${count(low)} to ${count(high)}`;
  };
  const [branches, ranks] = [some("branches"), some("rank")];
  switch (state.family) {
    case "wide":
      return `Layers ${k} × as wide${zeros}.`;
    case "parallel":
      return branches.length ? `${range(branches)} branches in place of each layer${zeros}.` : "No layer is transformed.";
    case "factorized":
      return ranks.length ? `Two factors of rank ${range(ranks)} in place of each layer${zeros}.` : "No layer is transformed.";
    case "doped":
      return ranks.length ? `A low-rank path of rank ${range(ranks)} beside each layer${zeros}.` : "No layer is transformed.";
    case "lowrank":
      if (!ranks.length) return "No layer is transformed.";
      return `Layers ${k} × as wide, each two dense factors of rank ${range(ranks)}.`;
    default:
      return `The same network${zeros}; the saved compute is not spent again.`;
  }
}

function detail(plan) {
  const { planned, dense, ratio: share } = plan.scopes[state.scope];
  const subject = state.scope === "model" ? "The whole model" : `Scope ${state.scope}`;
  if (plan.residual === null) return `${subject} costs ${decimal(share)} of the dense model's ${count(dense)} MACs.`;
  if (!plan.residual) return `${subject} costs exactly the dense model's ${count(planned)} MACs.`;
  return `${subject} costs ${count(planned)} of the dense model's ${count(dense)} MACs. The other ${count(plan.residual)} are less than one more weight or rank costs.`;
}

function show() {
  byId("command").textContent = commandOf(state);
  byId("told").textContent = "";
  showCurves();
  byId("nearest").hidden = true;
  try {
    const plan = planModel(model, state);
    byId("result").className = byId("figures").className = "";
    byId("headline").textContent = headline(plan);
    byId("detail").textContent = detail(plan);
    showCards(plan);
    showScopes(plan);
    showLayers(plan);
  } catch (error) {
    if (!(error instanceof Infeasible)) throw error;
    byId("result").className = "infeasible";
    byId("figures").className = "stale";
    byId("headline").textContent = "These settings have no plan.";
    byId("detail").textContent = error.message[0].toUpperCase() + error.message.slice(1);
    showNearest();
  }
}

function showNearest() {
  const sparsity = nearestFeasible(model, state);
  if (!sparsity) return;
  const button = byId("nearest");
  button.textContent = `Take the nearest sparsity that has one: ${sparsityText(sparsity)}`;
  button.onclick = () => change({ sparsity });
  button.hidden = false;
}

function showCards(plan) {
  const kept = total(plan.layers.filter((l) => l.maskable).map((l) => l.nnz));
  const whole = plan.scopes.model;
  const cards = [
    ["whole model", `${decimal(whole.ratio, 4)} ×`, `${count(whole.planned)} MACs`],
    ["widths", `${plan.multiplier.toFixed(3)} ×`, plan.widths ? "of the dense model's" : "kept as they are"],
    ["maskable weights", short(Number(plan.maskableWeights)), `${count(kept)} kept`],
    ["search space", `${short(plan.log2Masks)} bits`, "to name one mask"],
  ];
  byId("cards").replaceChildren(
    ...cards.map(([name, value, more]) =>
      element("div", { className: "card" }, element("span", { className: "soft" }, name), element("b", {}, value), element("span", { className: "soft" }, more)),
    ),
  );
}

function showScopes(plan) {
  const highest = Math.max(1, ...SCOPES.map((scope) => float(plan.scopes[scope].ratio)));
  const rows = SCOPES.map((scope) => {
    const { dense, planned, ratio: share, closingSparsity } = plan.scopes[scope];
    const closed = plan.residual !== null && scope === state.scope;
    return element(
      "tr",
      { className: closed ? "closed" : "", title: SCOPE_MEANINGS[scope] },
      cell(SCOPE_LABELS[scope] + (closed ? " (closed)" : "")),
      cell(count(dense), "number"),
      cell(count(planned), "number"),
      cell(decimal(share), "number"),
      element("td", {}, ratioBar(float(share), highest)),
      cell(closingSparsity ? decimal(closingSparsity) : "", "number"),
    );
  });
  byId("scopes").replaceChildren(
    headRow("scope", ">dense MACs", ">planned MACs", ">ratio", "", ">closing sparsity, same structure"),
    element("tbody", {}, ...rows),
  );
}

/** The planned cost as a bar, and where the dense cost is. */
function ratioBar(share, highest) {
  const at = (value) => (150 * value) / highest;
  const bar = drawn("svg", { class: "track", viewBox: "0 0 150 12", "aria-hidden": "true" });
  bar.append(drawn("rect", { x: 0, y: 1, width: at(share), height: 10, style: `fill: var(--${state.family})` }));
  bar.append(drawn("path", { d: `M${Math.min(149, at(1))} 0V12`, class: "axis", style: "stroke: var(--ink); stroke-width: 2" }));
  return bar;
}

const opened = { schema: "", layers: new Map(), heading: "" };

function showLayers(plan) {
  const largest = Number(plan.layers.map((l) => most(l.macs, l.denseMacs)).reduce(most, ONE));
  const rows = plan.layers.map((layer) => {
    const row = element(
      "tr",
      {},
      element("td", {}, ...layer.name.split(/(?<=\.)/).flatMap((part, i) => (i ? [element("wbr"), part] : [part]))),
      element("td", {}, costBars(layer, largest)),
      cell(layer.before),
      cell(layer.after),
      cell(layer.layer.positions ? count(layer.nnz) : "", "number"),
      cell(layer.layer.positions && layer.capacity ? decimal(ratio(layer.nnz, layer.capacity), 4) : "", "number"),
      cell(count(layer.denseMacs), "number"),
      cell(count(layer.macs), "number"),
      cell(signed(layer.macs - layer.denseMacs), "number"),
    );
    if (opened.heading) {
      const given = opened.layers.get(layer.name);
      row.append(cell(given === undefined ? "" : count(given), given === layer.macs || given === undefined ? "number" : "number wrong"));
    }
    row.append(cell(layer.role === "transformed" ? "" : `${layer.role.replace("_", " ")}: ${layer.reason}`, "why"));
    return row;
  });
  byId("layers").replaceChildren(
    headRow("layer", "dense and planned", "before", "after", ">weights kept", ">density", ">dense MACs", ">planned MACs", ">change", ...(opened.heading ? [`>${opened.heading}`] : []), "not transformed"),
    element("tbody", {}, ...rows),
  );
  filterLayers();
}

function costBars(layer, largest) {
  const bars = drawn("svg", { class: "bar", viewBox: "0 0 120 12", "aria-hidden": "true" });
  const width = (macs) => (120 * Number(macs)) / largest;
  bars.append(drawn("rect", { x: 0, y: 0, width: width(layer.denseMacs), height: 5, style: "fill: var(--none)" }));
  bars.append(drawn("rect", { x: 0, y: 6, width: width(layer.macs), height: 6, style: `fill: var(--${state.family})` }));
  return bars;
}

function filterLayers() {
  const wanted = byId("filter").value;
  for (const row of byId("layers").tBodies[0].rows) row.hidden = !row.cells[0].textContent.includes(wanted);
}

// --- curves over sparsity: a grid of plans, made while nobody waits -------------------------------------------------------

const GRID = Array.from({ length: 20 }, (_, i) => ratio(BigInt(i), 20n));
const WITH_MASKS = ["wide", "parallel", "factorized", "doped", "none"];
const SCOPE_DASHES = { matrices: "2 4", layers: "7 4", model: "none" };
const curves = new Map();
let work = 0;

function curveOf(family) {
  const request = { ...state, family };
  const { sparsity, ...rest } = settingsOf(request);
  const key = JSON.stringify({ ...rest, round_to: String(roundTo(request)) });
  if (!curves.has(key)) curves.set(key, []);
  return [curves.get(key), request];
}

function showCurves() {
  drawCurves();
  clearTimeout(work);
  work = setTimeout(nextPoint, 60);
}

function nextPoint() {
  for (const family of new Set([state.family, ...WITH_MASKS])) {
    const [curve, request] = curveOf(family);
    const step = family === "lowrank" ? 4 : 1; // ranks alone close slowly
    const at = curve.length;
    if (at >= GRID.length) continue;
    try {
      curve.push(at % step ? null : planModel(model, { ...request, sparsity: GRID[at] }));
    } catch (error) {
      if (!(error instanceof Infeasible)) throw error;
      curve.push(null);
    }
    const made = curve[at];
    if (made) curve[at] = { log2Masks: made.log2Masks, ratios: SCOPES.map((scope) => float(made.scopes[scope].ratio)) };
    if (curve.length === GRID.length) drawCurves();
    work = setTimeout(nextPoint, 0);
    return;
  }
}

function drawCurves() {
  const [mine] = curveOf(state.family);
  const costs = SCOPES.map((scope, i) => ({
    label: SCOPE_LABELS[scope],
    style: `stroke: var(--${state.family}); stroke-dasharray: ${SCOPE_DASHES[scope]}`,
    colour: state.family,
    chosen: scope === state.scope,
    points: mine.map((point) => (point ? point.ratios[i] : null)),
  }));
  drawChart(byId("costs"), costs, (value) => `${+value.toPrecision(3)} ×`);
  const spaces = WITH_MASKS.map((family) => ({
    label: FAMILY_LABELS[family],
    style: `stroke: var(--${family})`,
    colour: family,
    chosen: family === state.family,
    points: curveOf(family)[0].map((point) => (point ? point.log2Masks : null)),
  }));
  drawChart(byId("spaces"), spaces, short);
}

/** A step of 1, 2 or 5 times a power of ten, of which four or so reach the value. */
function evenStep(value) {
  const power = 10 ** Math.floor(Math.log10(value / 4));
  return power * [1, 2, 5, 10].find((one) => one * power * 5 >= value);
}

function drawChart(svg, lines, text) {
  const box = { left: 54, top: 12, width: 290, height: 186 };
  const step = evenStep(Math.max(...lines.flatMap((line) => line.points.map((p) => p || 0)), 1e-9));
  const levels = Math.ceil(Math.max(...lines.flatMap((line) => line.points.map((p) => p || 0))) / step) || 1;
  const highest = step * levels;
  const x = (i) => box.left + (box.width * i) / (GRID.length - 1);
  const y = (value) => box.top + box.height * (1 - value / highest);
  const found = [];
  for (let i = 0; i <= levels; i++) {
    found.push(drawn("path", { class: "axis", d: `M${box.left} ${y(i * step)}H${box.left + box.width}` }));
    found.push(drawn("text", { x: box.left - 6, y: y(i * step) + 4, "text-anchor": "end" }, i ? text(i * step) : "0"));
  }
  for (const i of [0, 5, 10, 15, 19]) {
    found.push(drawn("text", { x: x(i), y: box.top + box.height + 18, "text-anchor": "middle" }, String(i / 20)));
  }
  found.push(drawn("text", { x: box.left + box.width / 2, y: 236, "text-anchor": "middle" }, "sparsity"));
  const now = x(Math.min(19, float(state.sparsity) * 20));
  found.push(drawn("path", { class: "axis now", d: `M${now} ${box.top}V${box.top + box.height}` }));
  lines.forEach((line, row) => {
    let pen = "M";
    let path = "";
    const sparse = line.points.filter(Boolean).length <= 5;
    line.points.forEach((point, i) => {
      if (point === null) { if (!sparse) pen = "M"; return; }
      path += `${pen}${x(i).toFixed(1)} ${y(point).toFixed(1)}`;
      pen = "L";
    });
    if (path) found.push(drawn("path", { class: `line${line.chosen ? " chosen" : ""}`, d: path, style: line.style }));
    const at = box.top + 8 + 18 * row;
    found.push(drawn("path", { class: `line${line.chosen ? " chosen" : ""}`, d: `M354 ${at}h18`, style: line.style }));
    found.push(drawn("text", { x: 376, y: at + 4, style: line.chosen ? "font-weight: 600; fill: var(--ink)" : "" }, line.label.replace("Sparse ", "")));
  });
  svg.replaceChildren(...found);
}

// --- plans, audits and sweeps of the same model ---------------------------------------------------------------------------

async function openFile(event) {
  const [file] = event.target.files;
  if (!file) return;
  try {
    tryToOpen(JSON.parse(await file.text()));
  } catch {
    refuse(`${file.name} is no JSON.`);
  }
}

function refuse(why) {
  byId("refused").textContent = why;
  byId("refused").hidden = false;
}

function tryToOpen(found) {
  try {
    openDocument(found);
  } catch (error) {
    refuse(error instanceof Unopened ? error.message : `This file is damaged: ${error.message}.`);
  }
}

/** A document that the page cannot show. */
class Unopened extends Error {}

const KINDS = { "iftplan.plan/1": openPlan, "iftplan.audit/1": openAudit, "iftplan.sweep/1": openSweep };

function openDocument(found) {
  const open = KINDS[found && found.schema];
  byId("refused").hidden = true;
  if (!open) throw new Unopened("This file is not a plan, an audit or a sweep. Write one with iftplan plan, audit or sweep and -o FILE.json.");
  open(found);
}

function openPlan(plan) {
  const names = new Set([...model.layers, ...model.products].map((one) => one.name));
  if (plan.model !== model.source && !plan.layers.every((layer) => names.has(layer.name))) {
    throw new Unopened(`This is a plan of ${plan.model}, but the page is about ${model.source}.`);
  }
  const unknown = plan.keep_dense.filter((name) => !["first", "last"].includes(name));
  const beyond = [
    ...(plan.transform in FAMILIES ? [] : [`family ${plan.transform}`]),
    ...(plan.mask === "unstructured" ? [] : [`${plan.mask} masks`]),
    ...(plan.close === "density" ? [] : [`closing by ${plan.close}`]),
    ...(unknown.length ? [`keeping ${unknown.join(", ")} dense`] : []),
    ...(plan.wallclock ? ["layers kept dense for time"] : []),
  ];
  compareWith("MACs in the file", plan.layers);
  byId("opened").replaceChildren(
    element("p", {}, beyond.length
      ? `The plan asks for ${beyond.join(", ")}, which this page cannot plan. Its costs stand beside the page's own.`
      : "The controls show what the plan asked for; costs that differ from the page's own are marked."),
  ); // prettier-ignore
  change(settingsIn(`family=${plan.transform}&sparsity=${encodeURIComponent(plan.sparsity_exact.replace(/\/1$/, ""))}&scope=${plan.scope || state.scope}&distribution=${plan.distribution}&keep_dense=${plan.keep_dense.join()}&round_to=${plan.round_to}`));
}

function compareWith(title, layers) {
  opened.heading = title;
  opened.layers = new Map(layers.map((layer) => [layer.name, BigInt(layer.macs)]));
}

function openAudit(audit) {
  const perMac = audit.convention === "flop" ? 2n : ONE;
  const macs = (counted) => BigInt(counted) / perMac;
  const measured = audit.layers.filter((layer) => layer.measured_macs !== null);
  compareWith("measured MACs", measured.map(({ name, measured_macs }) => ({ name, macs: macs(measured_macs) })));
  const total = audit.measured_macs === null ? "not all of its MACs" : `${count(macs(audit.measured_macs))} MACs`;
  const verdict = audit.passed ? "It passed" : `It did not pass (${audit.verdict})`;
  byId("opened").replaceChildren(
    element("p", {}, `Audit of ${audit.subject}: ${total} measured in scope ${audit.scope}. ${verdict}. Costs that differ from the page's own are marked.`),
  );
  show();
}

/** The nearest fraction with a small denominator, which tables hold as a number: 1/3 of 0.333…. */
function fractionOf(value) {
  for (let below = 1; below <= 10000; below++) {
    const above = Math.round(value * below);
    if (Math.abs(above / below - value) < 1e-12) return below === 1 ? String(above) : `${above}/${below}`;
  }
  return value.toFixed(9);
}

function openSweep(sweep) {
  const rows = sweep.rows.filter((row) => row.model === model.source);
  if (!rows.length) throw new Unopened(`The sweep has no row of ${model.source}.`);
  const body = rows.map((row) => {
    const button = element("button", { type: "button" }, "Show");
    button.addEventListener("click", () =>
      change(settingsIn(`family=${row.transform}&sparsity=${encodeURIComponent(fractionOf(row.sparsity))}&scope=${row.scope || state.scope}&distribution=${row.distribution}`)),
    );
    const planned = row.macs === null ? [row.outcome, "", ""] : [count(row.macs), row.ratio.toFixed(6), row.log2_masks === null ? "" : short(row.log2_masks)];
    const gained = row.value === null ? "" : `${+row.value.toPrecision(5)} ${row.metric || ""}`;
    return element("tr", {}, cell(row.transform), cell(String(row.sparsity), "number"), cell(row.distribution), cell(row.structure),
      ...planned.map((text) => cell(text, "number")), cell(gained, "number"), element("td", {}, row.transform in FAMILIES && row.structure === "unstructured" ? button : "")); // prettier-ignore
  });
  byId("opened").replaceChildren(
    element("div", { className: "wide" }, element("table", {},
      headRow("family", ">sparsity", "distribution", "masks", ">planned MACs", ">ratio", ">search space, bits", ">result", ""),
      element("tbody", {}, ...body))),
  ); // prettier-ignore
}

// --- start ------------------------------------------------------------------------------------------------------------

function start() {
  byId("source").textContent = model.source || "a model";
  byId("about").textContent = `Input ${model.inputs.join(", ")} · ${count(denseMacs)} MACs in one dense forward pass`;
  byId("notes").textContent = model.notes.join(" ");
  addChoices("family", FAMILY_LABELS);
  addChoices("distribution", DISTRIBUTION_LABELS, DISTRIBUTION_MEANINGS);
  addChoices("scope", SCOPE_LABELS, SCOPE_MEANINGS);
  listen();
  Object.assign(state, settingsIn(location.hash));
  const given = JSON.parse(byId("document").textContent);
  if (given) tryToOpen(given);
  change({});
}

start();
