// Closing a budget to the MAC, step by step as `iftplan/plans/budget.py` does it; the reasons stand there.

const MOST_SUMS = 1n << 26n;
const spent = (accounts, nnz) => total(accounts.map((account, i) => nnz[i] * account.positions));

/**
 * Numbers of weights near the targets that spend as much of the budget as whole weights can, and what they cannot spend.
 * Accounts are {capacity, positions, target, least}, the target a ratio.
 */
function closeBudget(accounts, budget) {
  const start = (targets) => accounts.map((a, i) => most(a.least, whole(targets[i])));
  let targets = accounts.map((a) => (compare(a.target, ratio(a.capacity)) > 0 ? ratio(a.capacity) : a.target));
  let nnz = start(targets);
  let left = budget - spent(accounts, nnz);
  if (left < 0n || left >= total(accounts.map((a) => a.positions))) {
    targets = scaledTargets(accounts, targets, budget);
    nnz = start(targets);
    left = budget - spent(accounts, nnz);
  }
  left = roundTargets(accounts, targets, nnz, left);
  left = fillUp(accounts, nnz, left);
  left = exchange(accounts, targets, nnz, left);
  return [nnz, left];
}

function scaledTargets(accounts, targets, budget) {
  const full = new Set();
  for (;;) {
    const free = accounts.map((_, i) => i).filter((i) => !full.has(i) && targets[i].n);
    const asked = sumOf(free.map((i) => times(targets[i], ratio(accounts[i].positions))));
    const left = budget - total([...full].map((i) => accounts[i].capacity * accounts[i].positions));
    const factor = asked.n && left > 0n ? over(ratio(left), asked) : ratio(0n);
    const above = free.filter((i) => compare(times(targets[i], factor), ratio(accounts[i].capacity)) > 0);
    if (!above.length) {
      return targets.map((target, i) => (full.has(i) ? ratio(accounts[i].capacity) : times(target, factor)));
    }
    above.forEach((i) => full.add(i));
  }
}

function roundTargets(accounts, targets, nnz, left) {
  const ranked = targets
    .map((target, i) => ({ i, remainder: minus(target, ratio(nnz[i])), positions: accounts[i].positions }))
    .filter(({ remainder }) => remainder.n > 0n)
    .map((one) => ({ ...one, remainder: float(one.remainder) }))
    .sort((a, b) => b.remainder - a.remainder || Number(b.positions - a.positions) || a.i - b.i);
  for (let from = 0; from < ranked.length; ) {
    const { remainder, positions } = ranked[from];
    let to = from;
    while (to < ranked.length && ranked[to].remainder === remainder && ranked[to].positions === positions) to++;
    const tied = BigInt(to - from);
    const some = most(0n, least(tied, floorDivide(left, positions)));
    for (let i = 0n; i < tied; i++) {
      if (ceilDivide((i + ONE) * some, tied) > ceilDivide(i * some, tied)) nnz[ranked[from + Number(i)].i] += ONE;
    }
    left -= some * positions;
    from = to;
  }
  return left;
}

function fillUp(accounts, nnz, left) {
  const order = accounts.map((_, i) => i).sort((a, b) => Number(accounts[b].positions - accounts[a].positions) || a - b);
  for (const i of order) {
    if (!left) break;
    const { capacity, positions, least: fewest } = accounts[i];
    const step = most(fewest - nnz[i], least(floorDivide(left, positions), capacity - nnz[i]));
    nnz[i] += step;
    left -= step * positions;
  }
  return left;
}

function exchange(accounts, targets, nnz, left) {
  const [coins, unit] = coinsOf(accounts, nnz);
  const want = floorDivide(left, unit);
  if (!coins.length || !want) return left;
  const enough = 2n * coins[coins.length - 1].value + magnitude(want);
  let found = null;
  for (let limit = ONE; ; limit *= 2n) {
    const limited = coins.map((c) => ({ ...c, fewer: least(c.fewer, limit), more: least(c.more, limit) }));
    if (total(limited.map((c) => (c.fewer + c.more) * c.value)) > MOST_SUMS) break;
    found = mostSpent(limited, want) || found;
    const same = limited.every((c, i) => c.fewer === coins[i].fewer && c.more === coins[i].more);
    if (limit >= enough || same || (found && found.spent === want)) break;
  }
  if (!found) return left;
  coins.forEach((coin, i) => moveWeights(accounts, targets, nnz, coin.members, found.moves[i]));
  return left - found.spent * unit;
}

function coinsOf(accounts, nnz) {
  const alike = new Map();
  accounts.forEach((account, i) => {
    if (account.capacity > account.least) {
      alike.set(account.positions, [...(alike.get(account.positions) || []), i]);
    }
  });
  const unit = [...alike.keys()].reduce(gcd, 0n) || ONE;
  const ordered = [...alike].sort(([a], [b]) => (a < b ? -1 : 1));
  const coins = ordered.map(([positions, members]) => ({
    value: positions / unit,
    members,
    fewer: total(members.map((i) => nnz[i] - accounts[i].least)),
    more: total(members.map((i) => accounts[i].capacity - nnz[i])),
  }));
  return [coins, unit];
}

function mostSpent(coins, want) {
  const reachable = [ONE]; // bit s: the sum s can be made, counted from as few weights as possible
  for (const coin of coins) {
    let sums = reachable[reachable.length - 1];
    let together = coin.fewer + coin.more;
    for (let part = ONE; together; part *= 2n) {
      part = least(part, together);
      sums |= sums << (part * coin.value);
      together -= part;
    }
    reachable.push(sums);
  }
  const lowest = -total(coins.map((c) => c.fewer * c.value));
  if (want < lowest) return null;
  let at = BigInt(bitLength(reachable.pop() & ((ONE << (want - lowest + ONE)) - ONE)) - 1);
  const found = { spent: at + lowest, moves: [] };
  for (const coin of [...coins].reverse()) {
    const bits = reachable.pop().toString(16);
    const reached = (place) => {
      const digit = bits.length - 1 - Number(place >> 2n);
      return place >= 0n && digit >= 0 && (parseInt(bits[digit], 16) >> Number(place & 3n)) & 1;
    };
    const after = (move) => at - (coin.fewer + move) * coin.value;
    let move = 0n;
    for (let size = 0n; ; size++) {
      if (size <= coin.fewer && reached(after(-size))) { move = -size; break; }
      if (size <= coin.more && reached(after(size))) { move = size; break; }
    }
    at = after(move);
    found.moves.unshift(move);
  }
  return found;
}

function moveWeights(accounts, targets, nnz, members, move) {
  const sign = move > 0n ? ONE : -ONE;
  const share = new Map(members.map((i) => [i, 1 / Math.max(1, float(targets[i]))]));
  const distance = new Map(
    members.map((i) => [i, Number(sign) * float(minus(ratio(nnz[i]), targets[i])) * share.get(i)]),
  );
  const nearest = () => [...distance].reduce((a, b) => (b[1] < a[1] || (b[1] === a[1] && b[0] < a[0]) ? b : a))[0];
  for (let moved = 0n; moved < magnitude(move); moved++) {
    let i = nearest();
    while (nnz[i] + sign < accounts[i].least || nnz[i] + sign > accounts[i].capacity) {
      distance.delete(i);
      i = nearest();
    }
    nnz[i] += sign;
    distance.set(i, distance.get(i) + share.get(i));
  }
}
