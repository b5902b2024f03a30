// Plans of a whole model as `iftplan/plans` makes them, from the description that `description.py` writes.

const SCOPES = ["matrices", "layers", "model"];
const MOST_BRANCHES = 1e6;
const LOOKED_UP = ["embedding", "norm", "activation"];

/** A request that no densities or sizes satisfy. */
class Infeasible extends Error {}

const isWithin = (role, scope) =>
  scope === "model" || (scope === "matrices" ? role === "transformed" : role !== "activation");

/** The description with its numbers as BigInt, which JSON cannot hold. */
function prepareModel(description) {
  const polynomial = (terms) =>
    terms && terms.map(([n, d, powers]) => [BigInt(n), BigInt(d), powers.map(([s, p]) => [s, BigInt(p)])]);
  const spec = (s) => ({
    ...s,
    in: BigInt(s.in), out: BigInt(s.out), kernel: s.kernel.map(BigInt), groups: BigInt(s.groups),
    positions: BigInt(s.positions), experts: BigInt(s.experts),
  }); // prettier-ignore
  return {
    ...description,
    widths: Object.entries(description.widths || {}).map(([name, w]) => ({
      ...w, name, size: BigInt(w.size), multiple: BigInt(w.multiple),
    })), // prettier-ignore
    layers: description.layers.map((layer) => ({
      ...layer,
      dense: spec(layer.dense),
      widened: layer.widened && {
        ...layer.widened,
        macs: polynomial(layer.widened.macs),
        in: polynomial(layer.widened.in),
        out: polynomial(layer.widened.out),
        experts: polynomial(layer.widened.experts),
        shape: (layer.widened.shape || []).map(polynomial),
      },
    })),
    products: description.products.map((p) => ({ ...p, macs: BigInt(p.macs), widened: polynomial(p.widened) })),
  };
}

function valueAt(terms, sizes) {
  let value = ratio(0n);
  for (const [n, d, powers] of terms) {
    value = plus(value, ratio(n * product(powers.map(([symbol, power]) => sizes.get(symbol) ** power)), d));
  }
  return value.n / value.d;
}

// --- layers ------------------------------------------------------------------------------------------------

const fanIn = (l) => (l.in / l.groups) * (l.transposed ? ONE : product(l.kernel));
const fanOut = (l) => l.out * (l.transposed ? product(l.kernel) : ONE);
const weightsOf = (l) => (l.kind === "norm" || l.kind === "activation" ? 0n : l.experts * fanIn(l) * fanOut(l));
const macsOf = (l, weights) => (l.positions * weights) / l.experts;

function notation(l) {
  const positions = LOOKED_UP.includes(l.kind) ? 0n : most(ONE, l.positions);
  const depthwise = l.depthwise && l.in === l.out;
  let kind = l.kind;
  if (l.kernel.length) {
    const dims = l.kernel.length === 2 ? "" : `${l.kernel.length}d`;
    kind = `${depthwise ? "dw" : ""}conv${l.transposed ? "t" : ""}${dims}${l.kernel.join("x")}`;
  }
  const channels = depthwise || kind === "norm" || kind === "activation" ? l.out : `${l.in}-${l.out}`;
  return [
    `${kind}:${channels}`,
    positions > ONE ? `@${positions}` : "",
    l.groups > ONE && !depthwise ? `,groups=${l.groups}` : "",
    l.experts > ONE ? `,experts=${l.experts}` : "",
  ].join("");
}

function restructured(own, family, structure) {
  if (structure.branches !== undefined) return `${structure.branches} × ${own}`;
  if (structure.rank === undefined) return own;
  return family === "doped" ? `${own} + rank ${structure.rank}` : `${own} via rank ${structure.rank}`;
}

function layerAt(layer, sizes) {
  const { dense, widened } = layer;
  if (!sizes || !widened) return dense;
  if (widened.refusal) throw new Infeasible(widened.refusal);
  const macs = dense.positions ? valueAt(widened.macs, sizes) : 0n;
  if (!widened.matrix) {
    const one = { in: ONE, out: ONE, kernel: [], groups: ONE, experts: ONE };
    return { ...dense, ...one, kind: "linear", transposed: false, depthwise: false, positions: macs };
  }
  const out = valueAt(widened.out, sizes);
  return {
    ...dense,
    in: valueAt(widened.in, sizes),
    out,
    groups: dense.depthwise ? out : dense.groups,
    positions: macs / product(widened.shape.map((dimension) => valueAt(dimension, sizes))),
    experts: widened.experts ? valueAt(widened.experts, sizes) : ONE,
  };
}

// --- the families: their integers, and what they hold -------------------------------------------------------

const FAMILIES = {
  wide: { widens: true },
  parallel: { key: "branches", covers: true, cost: (m, n, x) => [m * n * x, 0n] },
  factorized: { key: "rank", covers: true, cost: (m, n, x) => [(m + n) * x, 0n] },
  doped: { key: "rank", covers: false, cost: (m, n, x) => [m * n, (m + n) * x] },
  lowrank: { key: "rank", covers: false, widens: true, cost: (m, n, x) => [0n, (m + n) * x] },
  none: {},
};

/** The width of a layer by itself, as the smallest that covers its own budget. */
function grown(dense, density) {
  if (density.n === density.d) return dense;
  const grow = (channels, unit) => {
    const square = ratio(channels * channels * density.d, density.n);
    return roundUp(rootAbove(ceilDivide(square.n, square.d)), unit);
  };
  return { ...dense, in: grow(dense.in, dense.groups), out: grow(dense.out, dense.groups) };
}

/** Number of branches, or rank, of one layer at its own dense MACs; null where none of at least one fits. */
function unknownOf(dense, family, density) {
  const { key, covers, cost, widens } = FAMILIES[family];
  const own = widens ? grown(dense, density) : dense;
  const [m, n] = [fanIn(own), fanOut(own)];
  const budget = ratio(fanIn(dense) * fanOut(dense));
  const unit = key === "rank" ? dense.groups : ONE;
  const [masked, fixed] = [0n, ONE].map((x) => plus(times(ratio(cost(m, n, x)[0]), density), ratio(cost(m, n, x)[1])));
  const needed = over(minus(budget, masked), minus(fixed, masked)); // the cost is linear in the unknown
  if (key === "branches" && float(over(ratio(ONE), density)) > MOST_BRANCHES) {
    throw new Infeasible(`more than ${MOST_BRANCHES} branches are not planned.`);
  }
  if (covers) return roundUp(most(ONE, ceilDivide(needed.n, needed.d)), unit);
  const found = most(0n, (floorDivide(needed.n, needed.d) / unit) * unit);
  const itself = cost(m, n, ONE)[0] > 0n;
  return found < ONE && (density.n < density.d || !itself) ? null : found;
}

function withUnknown(row, family, unknown) {
  const { key, cost } = FAMILIES[family];
  const [masked, fixed] = cost(fanIn(row.layer), fanOut(row.layer), unknown);
  return {
    ...row,
    nnz: null,
    capacity: row.layer.experts * masked,
    denseWeights: row.layer.experts * fixed,
    structure: { ...row.structure, [key]: unknown },
  };
}

// --- rows ----------------------------------------------------------------------------------------------------

const fixedMacs = (row) => macsOf(row.layer, row.denseWeights + (row.nnz === null ? 0n : row.nnz)) + row.productMacs;
const maskableMacs = (row) => (row.nnz === null ? macsOf(row.layer, row.capacity) : 0n);
const NO_LAYER = { positions: 0n, experts: ONE };

function layerRow(model, layer, request, density, sizes) {
  const keep = (request.keepFirst ? 1 : 0) + (request.keepLast ? 2 : 0);
  const [role, reason] = model.roles[layer.roles[request.family][keep]];
  const own = layerAt(layer, sizes);
  const row = {
    name: layer.name, role, reason, before: notation(layer.dense), layer: own,
    denseMacs: macsOf(layer.dense, weightsOf(layer.dense)), capacity: weightsOf(own), nnz: weightsOf(own),
    denseWeights: 0n, productMacs: 0n, structure: sizes ? { in_channels: own.in, out_channels: own.out } : {},
  }; // prettier-ignore
  if (role === "depthwise" && weightsOf(own) > weightsOf(layer.dense)) {
    return { ...row, nnz: row.denseMacs / own.positions };
  }
  if (role !== "transformed") return row;
  if (request.family === "none" || request.family === "wide") return { ...row, nnz: null };
  const unknown = unknownOf(layer.dense, request.family, density);
  if (unknown !== null) return withUnknown(row, request.family, unknown);
  if (request.family === "doped") return { ...row, role: "kept_dense", reason: model.tooSmall, small: true };
  throw new Infeasible(`${layer.name} is too small for a rank of ${layer.dense.groups}; keep it dense.`);
}

function rowsOf(model, request, density, sizes) {
  const layers = model.layers.map((layer) => layerRow(model, layer, request, density, sizes));
  const small = layers.find((row) => row.small);
  if (small && !layers.some((row) => row.role === "transformed")) {
    throw new Infeasible(`nothing is transformed: ${small.name} and every other layer is too small for a rank of 1.`);
  }
  const products = model.products.map((p) => ({
    name: p.name, role: "activation", reason: model.product, before: p.operator, layer: NO_LAYER, denseMacs: p.macs,
    capacity: 0n, nnz: 0n, denseWeights: 0n, structure: {},
    productMacs: sizes && p.widened ? valueAt(p.widened, sizes) : p.macs,
  })); // prettier-ignore
  return [...layers, ...products];
}

function booksOf(rows, scope) {
  const inside = rows.filter((row) => isWithin(row.role, scope));
  const sum = (of) => total(inside.map(of));
  return { budget: sum((row) => row.denseMacs), fixed: sum(fixedMacs), maskable: sum(maskableMacs) };
}

// --- densities, and what closes the budget ---------------------------------------------------------------------

function probabilityOf(layer, distribution) {
  if (distribution === "uniform") return ratio(ONE);
  const shape = [layer.in / layer.groups, layer.out, ...(distribution === "erk" ? layer.kernel : [])];
  return ratio(total(shape), product(shape));
}

/** Densities with Σ density·cost = budget, none above 1. */
function densitiesOf(rows, costs, budget, distribution) {
  if (!rows.length) return [];
  if (budget.n <= 0n || compare(budget, ratio(total(costs))) > 0) {
    throw new Infeasible("all maskable layers at density 1 cost less than the budget.");
  }
  const weights = rows.map((row) => probabilityOf(row.layer, distribution));
  const dense = new Set();
  for (;;) {
    const free = rows.map((_, i) => i).filter((i) => !dense.has(i));
    if (!free.length) return rows.map(() => ratio(ONE));
    const left = minus(budget, ratio(total([...dense].map((i) => costs[i]))));
    const epsilon = over(left, sumOf(free.map((i) => times(weights[i], ratio(costs[i])))));
    if (epsilon.n < 0n) throw new Infeasible("layers held at density 1 already cost more than the budget.");
    const top = free.map((i) => weights[i]).reduce((a, b) => (compare(a, b) < 0 ? b : a));
    if (compare(times(epsilon, top), ratio(ONE)) <= 0) {
      return rows.map((_, i) => (dense.has(i) ? ratio(ONE) : times(epsilon, weights[i])));
    }
    free.filter((i) => compare(weights[i], top) === 0).forEach((i) => dense.add(i));
  }
}

function targetsOf(rows, request, left) {
  if (request.distribution === "uniform" && !FAMILIES[request.family].widens) {
    const own = rows.map((row) => ratio((row.denseMacs - fixedMacs(row)) * row.layer.experts, row.layer.positions));
    const cost = sumOf(own.map((t, i) => times(t, ratio(rows[i].layer.positions, rows[i].layer.experts))));
    if (compare(cost, ratio(left)) === 0) return own; // each layer closes by itself
  }
  const spread = densitiesOf(rows, rows.map(maskableMacs), ratio(left), request.distribution);
  return spread.map((density, i) => times(density, ratio(rows[i].capacity)));
}

function overspent(scope, books) {
  return new Infeasible(
    `the budget of scope ${scope} cannot be met: the parts without a mask already cost ${books.fixed} MACs, and the budget is ${books.budget}.`,
  );
}

/** Row → weights it keeps, where that is the budget's to choose; rows of ranks come back changed. */
function closeRows(rows, request) {
  const books = booksOf(rows, request.scope);
  const open = rows.filter((row) => maskableMacs(row));
  if (!open.length) return closeByRank(rows, books, request);
  const left = books.budget - books.fixed;
  if (left <= 0n) throw overspent(request.scope, books);
  const accounts = targetsOf(open, request, left).map((target, i) => {
    const { experts, positions } = open[i].layer;
    const steps = over(target.n > 0n ? target : ratio(0n), ratio(experts));
    return { capacity: open[i].capacity / experts, positions, target: steps, least: compare(steps, ratio(ONE)) < 0 ? 0n : ONE };
  });
  const [steps] = closeBudget(accounts, left);
  const kept = new Map(open.map((row, i) => [row.name, steps[i] * row.layer.experts]));
  for (const [name, nnz] of kept) {
    if (!nnz) throw new Infeasible(`the budget of scope ${request.scope} leaves ${name} no weight at all.`);
  }
  return [rows, kept];
}

function closeByRank(rows, books, request) {
  const ranked = rows.filter((row) => row.role === "transformed" && row.nnz === null);
  if (request.family === "none" || !ranked.length) {
    if (books.fixed > books.budget && !rows.some((row) => row.role === "transformed")) {
      throw overspent(request.scope, books);
    }
    return [rows, new Map()];
  }
  const used = total(ranked.map(fixedMacs));
  const left = books.budget - (books.fixed - used);
  if (left <= 0n) throw overspent(request.scope, { ...books, fixed: books.fixed - used });
  const accounts = ranked.map((row) => {
    const { rank } = row.structure;
    const unit = row.layer.groups;
    const highest = least(fanIn(row.layer), fanOut(row.layer)) / unit;
    const wanted = ratio(left * rank, used * unit);
    const target = compare(wanted, ratio(ONE)) < 0 ? ratio(ONE) : wanted;
    return { capacity: most(highest, ONE), positions: (fixedMacs(row) / rank) * unit, target, least: ONE };
  });
  const [steps, residual] = closeBudget(accounts, left);
  if (residual < 0n) throw new Infeasible(`the budget of scope ${request.scope} cannot be met with whole ranks.`);
  const chosen = new Map(
    ranked.map((row, i) => [row.name, withUnknown(row, request.family, steps[i] * row.layer.groups)]),
  );
  return [rows.map((row) => chosen.get(row.name) || row), new Map()];
}

/** Plain sparsity at the same width: densities counted in weights, as the papers do. */
function sparsifyRows(rows, request, density) {
  const masked = rows.filter((row) => maskableMacs(row));
  const capacities = masked.map((row) => row.capacity);
  const budget = times(density, ratio(total(capacities)));
  const spread = densitiesOf(masked, capacities, budget, request.distribution);
  const kept = masked.map((row, i) => {
    const { experts } = row.layer;
    const wanted = floorDivide(rounded(times(spread[i], ratio(row.capacity))), experts);
    return [row.name, least(row.capacity / experts, wanted) * experts];
  });
  return [rows, new Map(kept)];
}

// --- the plan ----------------------------------------------------------------------------------------------------

function plannedLayer(row, kept, family) {
  const nnz = row.nnz === null ? kept.get(row.name) || 0n : row.nnz;
  const { layer, capacity } = row;
  const masked = capacity > 0n && (row.nnz === null || row.nnz < capacity);
  return {
    name: row.name,
    role: row.role,
    reason: row.reason,
    before: row.before,
    after: row.role === "activation" ? row.before : restructured(notation(layer), family, row.structure),
    layer,
    structure: row.structure,
    denseMacs: row.denseMacs,
    macs: macsOf(layer, row.denseWeights + nnz) + row.productMacs,
    capacity,
    nnz,
    denseWeights: row.denseWeights,
    maskable: masked,
    log2Masks: masked ? log2Choose(capacity / layer.experts, nnz / layer.experts) * Number(layer.experts) : 0,
  };
}

function sizesOf(model, density, roundTo) {
  const grow = ({ size, multiple }) => {
    if (density.n === density.d) return size;
    const square = ceilDivide(size * size * density.d, density.n);
    return roundUp(rootAbove(square), lcm(multiple, roundTo));
  };
  return new Map(model.widths.map((width) => [width.name, width.fixed ? width.size : grow(width)]));
}

/**
 * The plan of a prepared model.
 *
 * A request is {family, sparsity, scope, distribution, keepFirst, keepLast, roundTo}: the sparsity a ratio in [0, 1), `roundTo`
 * a BigInt. Throws Infeasible where the planner does.
 */
function planModel(model, request) {
  const density = minus(ratio(ONE), request.sparsity);
  const { key, widens } = FAMILIES[request.family];
  const stays = key && density.n === density.d; // at density 1 its ranks close the budget at the dense widths
  if (widens && model.refusal && !stays) throw new Infeasible(model.refusal);
  const sizes = widens && model.widths.length ? sizesOf(model, density, request.roundTo) : null;
  const rows = rowsOf(model, request, density, sizes);
  const closes = request.family !== "none";
  const [closed, kept] = closes ? closeRows(rows, request) : sparsifyRows(rows, request, density);
  const layers = closed.map((row) => plannedLayer(row, kept, request.family));
  const masked = layers.filter((layer) => layer.maskable);
  const scopes = {};
  for (const scope of SCOPES) {
    const inside = layers.filter((layer) => isWithin(layer.role, scope));
    const [dense, planned] = [total(inside.map((l) => l.denseMacs)), total(inside.map((l) => l.macs))];
    const { budget, fixed, maskable } = booksOf(rows, scope);
    const closing = closes && maskable ? ratio(budget - fixed, maskable) : null;
    const possible = closing && closing.n > 0n && compare(closing, ratio(ONE)) <= 0;
    scopes[scope] = {
      dense,
      planned,
      ratio: dense ? ratio(planned, dense) : ratio(ONE),
      closingSparsity: possible ? minus(ratio(ONE), closing) : null,
    };
  }
  return {
    layers,
    scopes,
    widths: sizes,
    multiplier: widens ? Math.sqrt(float(ratio(density.d, density.n))) : 1,
    residual: closes ? scopes[request.scope].dense - scopes[request.scope].planned : null,
    maskableWeights: total(masked.map((layer) => layer.capacity)),
    log2Masks: masked.reduce((sum, layer) => sum + layer.log2Masks, 0),
  };
}

/** The nearest sparsity, in hundredths, at which the request is feasible; null if there is none. */
function nearestFeasible(model, request) {
  if (request.family === "none" || (FAMILIES[request.family].widens && model.refusal)) return null;
  const start = rounded(times(request.sparsity, ratio(100n)));
  for (let step = ONE; step < 100n; step++) {
    for (const hundredths of [start - step, start + step]) {
      if (hundredths < 0n || hundredths >= 100n) continue;
      try {
        planModel(model, { ...request, sparsity: ratio(hundredths, 100n) });
        return ratio(hundredths, 100n);
      } catch (error) {
        if (!(error instanceof Infeasible)) throw error;
      }
    }
  }
  return null;
}
