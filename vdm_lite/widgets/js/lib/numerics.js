// Plain numerical functions, in the order and on the nodes that vdm_lite uses, in double precision.

// Gauss-Legendre on [-1, 1], 16 points: the positive half.
const LEGENDRE_NODES = [
  0.09501250983763744, 0.2816035507792589, 0.45801677765722737, 0.6178762444026438,
  0.755404408355003, 0.8656312023878318, 0.9445750230732326, 0.9894009349916499,
];
const LEGENDRE_WEIGHTS = [
  0.18945061045506864, 0.18260341504492364, 0.16915651939500265, 0.1495959888165767,
  0.12462897125553407, 0.0951585116824926, 0.062253523938647456, 0.027152459411754176,
];

export function sigmoid(x) {
  return 1 / (1 + Math.exp(-x));
}

/** log(1 + e^x) without overflow. */
export function softplus(x) {
  return Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
}

export function sum(values) {
  let total = 0;
  for (const value of values) total += value;
  return total;
}

/** `n` even numbers from a to b, both among them. */
export function linspace(a, b, n) {
  return Array.from({ length: n }, (_, i) => (i === n - 1 ? b : a + ((b - a) * i) / (n - 1)));
}

/** The complementary error function 2/sqrt(pi) * integral of e^(-r^2) from x on; all digits. */
export function erfc(x) {
  if (x < 0) return 2 - erfc(-x);
  const bell = Math.exp(-x * x) / Math.sqrt(Math.PI);
  if (x < 1.5) {
    // erf(x) = 2 x bell * sum of (2 x^2)^n / (1 * 3 * 5 ... (2n + 1)): every term is positive.
    let term = 1;
    let series = 1;
    for (let n = 1; term > 1e-17 * series; n++) {
      term *= (2 * x * x) / (2 * n + 1);
      series += term;
    }
    return 1 - 2 * x * bell * series;
  }
  // The continued fraction x + (1/2)/(x + (2/2)/(x + (3/2)/(x + ...))), from its far end.
  let fraction = x;
  for (let n = Math.ceil(13 + 150 / (x * x)); n > 0; n--) fraction = x + n / 2 / fraction;
  return bell / fraction;
}

/** The quantile of N(0, 1) with probability p below it. */
export function ndtri(p) {
  if (!(p > 0 && p < 1)) return p === 0 ? -Infinity : p === 1 ? Infinity : NaN;
  if (p > 0.5) return -ndtri(1 - p);
  // Halley's method on log Phi(x) = log p, which is concave, so that this start does not go astray.
  let x = -Math.sqrt(-2 * Math.log(2 * p));
  for (let i = 0; i < 30; i++) {
    const below = erfc(-x / Math.SQRT2) / 2;
    const slope = Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI) / below;
    const off = Math.log(below / p);
    const move = (2 * off * slope) / (2 * slope * slope + off * slope * (x + slope));
    x -= move;
    if (Math.abs(move) < 1e-6 * Math.max(1, -x)) break; // the next error is of third order
  }
  return x;
}

/** Nodes and weights for integrals over [low, high]: Gauss-Legendre, 16 points a panel. */
export function legendre(low, high, panels = 64) {
  const half = (high - low) / panels / 2;
  const nodes = [];
  const weights = [];
  for (let panel = 0; panel < panels; panel++) {
    const center = low + half * (2 * panel + 1);
    for (let i = -8; i < 8; i++) {
      const k = i < 0 ? -i - 1 : i;
      nodes.push(center + half * Math.sign(i + 0.5) * LEGENDRE_NODES[k]);
      weights.push(half * LEGENDRE_WEIGHTS[k]);
    }
  }
  return { nodes, weights };
}

/** Points and weights for expectations under N(0, 1): the trapezoid rule on [-width, width]. */
export function normalNodes(n = 121, width = 9) {
  const nodes = linspace(-width, width, n);
  const bells = nodes.map((node) => Math.exp(-0.5 * node * node));
  const total = sum(bells);
  return { nodes, weights: bells.map((bell) => bell / total) };
}

/** Where f, which has different signs at `low` and `high`, is zero. */
export function bisect(f, low, high) {
  const sign = Math.sign(f(low));
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (Math.sign(f(middle)) === sign) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}
