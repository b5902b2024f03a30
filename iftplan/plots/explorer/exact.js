"use strict";
// Whole numbers are BigInt, ratios are {n, d} in lowest terms with d > 0: every count is the planner's, to the MAC.

const ONE = 1n;
const magnitude = (a) => (a < 0n ? -a : a);
const least = (a, b) => (a < b ? a : b);
const most = (a, b) => (a > b ? a : b);
const total = (numbers) => numbers.reduce((sum, one) => sum + one, 0n);
const product = (numbers) => numbers.reduce((all, one) => all * one, ONE);

function gcd(a, b) {
  [a, b] = [magnitude(a), magnitude(b)];
  while (b) [a, b] = [b, a % b];
  return a;
}

const lcm = (a, b) => (a / gcd(a, b)) * b;

/** Quotient rounded down; BigInt's own rounds towards zero. */
function floorDivide(a, b) {
  const quotient = a / b;
  return a % b !== 0n && a < 0n !== b < 0n ? quotient - ONE : quotient;
}

const ceilDivide = (a, b) => -floorDivide(-a, b);
const roundUp = (size, multiple) => ceilDivide(size, multiple) * multiple;

function ratio(n, d = ONE) {
  const common = gcd(n, d) * (d < 0n ? -ONE : ONE) || ONE;
  return { n: n / common, d: d / common };
}

const plus = (a, b) => ratio(a.n * b.d + b.n * a.d, a.d * b.d);
const minus = (a, b) => ratio(a.n * b.d - b.n * a.d, a.d * b.d);
const times = (a, b) => ratio(a.n * b.n, a.d * b.d);
const over = (a, b) => ratio(a.n * b.d, a.d * b.n);
const compare = (a, b) => {
  const difference = a.n * b.d - b.n * a.d;
  return difference < 0n ? -1 : difference > 0n ? 1 : 0;
};
const whole = (a) => floorDivide(a.n, a.d);
const sumOf = (ratios) => ratios.reduce(plus, ratio(0n));

/** The nearest whole number, the even one of two that are as near. */
function rounded(a) {
  const low = whole(a);
  const twice = 2n * (a.n - low * a.d);
  return twice > a.d || (twice === a.d && low % 2n) ? low + ONE : low;
}

function bitLength(a) {
  if (a === 0n) return 0;
  const text = a.toString(16);
  return 4 * text.length - Math.clz32(parseInt(text[0], 16)) + 28;
}

/** The double nearest to a ratio: 64 bits of the quotient, the last of which says whether anything is left. */
function float({ n, d }) {
  if (n === 0n) return 0;
  const size = magnitude(n);
  const shift = 64 - bitLength(size) + bitLength(d);
  const [above, below] = shift > 0 ? [size << BigInt(shift), d] : [size, d << BigInt(-shift)];
  const quotient = (above / below) | (above % below ? ONE : 0n);
  return (n < 0n ? -1 : 1) * Number(quotient) * 2 ** -shift;
}

/** The smallest whole number whose square is at least `a`. */
function rootAbove(a) {
  if (a <= ONE) return ONE;
  let root = ONE << BigInt(Math.ceil(bitLength(a) / 2));
  for (;;) {
    const next = (root + a / root) >> ONE;
    if (next >= root) return root * root < a ? root + ONE : root;
    root = next;
  }
}

function log2Of(a) {
  const extra = Math.max(0, bitLength(a) - 64);
  return Math.log2(Number(a >> BigInt(extra))) + extra;
}

const EXACT_UP_TO = 1024;
const stirling = (x) => 1 / (12 * x) - 1 / (360 * x ** 3) + 1 / (1260 * x ** 5);

/** log2 of the binomial coefficient C(n, k): exact while that is cheap, Stirling's series beyond. */
function log2Choose(n, k) {
  k = least(k, n - k);
  if (k <= EXACT_UP_TO) {
    let ways = ONE;
    for (let i = ONE; i <= k; i++) ways = (ways * (n - k + i)) / i;
    return log2Of(ways);
  }
  const [all, kept, rest] = [n, k, n - k].map(Number);
  const entropy = kept * (Math.log(all) - Math.log(kept)) - rest * Math.log1p(-kept / all);
  const correction =
    0.5 * Math.log(all / (2 * Math.PI * kept * rest)) + stirling(all) - stirling(kept) - stirling(rest);
  return (entropy + correction) / Math.LN2;
}

/** A sparsity written as 0.75, 3/4 or 75%, in [0, 1); null for anything else. */
function sparsityIn(text) {
  const found = /^\s*(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})\s*(?:\/\s*(\d{1,9})\s*)?(%?)\s*$/.exec(text);
  if (!found || (found[2] && (found[3] || !BigInt(found[2]) || found[1].includes(".")))) return null;
  const [before, after = ""] = found[1].split(".");
  const scale = 10n ** BigInt(after.length) * BigInt(found[2] || 1) * (found[3] ? 100n : ONE);
  const value = ratio(BigInt(before + after), scale);
  return value.n < value.d ? value : null;
}
