// The diffusion cost of a denoiser whose error is known, for T layers and for infinitely many.
//
// An error is a function of logsnr: the error of the noise, SNR * E||x - x_hat||^2, which stays
// of the same size over the whole range. All costs are in nats.
import { memo } from "./memo.js";
import { fourthMoment, mmse } from "./mixtures.js";
import { legendre, normalNodes, sum } from "./numerics.js";

const POINTS = 16;
const LOWEST = -32; // the least x that a table knows
const PANELS = 20; // of an integral over the log SNR, 16 points each

/** Chebyshev coefficients of a function on [low, low + 1]. */
function chebyshev(f, low) {
  const angles = Array.from({ length: POINTS }, (_, j) => (Math.PI * (j + 0.5)) / POINTS);
  const values = angles.map((angle) => f(low + (1 + Math.cos(angle)) / 2));
  const projection = (k) => sum(angles.map((angle, j) => values[j] * Math.cos(k * angle)));
  return Float64Array.from(angles, (_, k) => ((k === 0 ? 1 : 2) * projection(k)) / POINTS);
}

/** Coefficients of the derivative of a Chebyshev series over a panel of length 1. */
function derivative(coefficients) {
  const slopes = new Float64Array(coefficients.length + 1);
  for (let k = coefficients.length - 1; k > 0; k--)
    slopes[k - 1] = slopes[k + 1] + 4 * k * coefficients[k];
  slopes[0] /= 2;
  return slopes.slice(0, -2);
}

/** A Chebyshev series at x in [-1, 1], by Clenshaw's recurrence. */
function clenshaw(coefficients, x) {
  let last = 0;
  let before = 0;
  for (let k = coefficients.length - 1; k > 0; k--) {
    const next = 2 * x * last - before + coefficients[k];
    before = last;
    last = next;
  }
  return x * last - before + coefficients[0];
}

/**
 * A smooth function that is dear to compute, as one that is cheap: {value(x), slope(x)}.
 * Panels of length 1 are interpolated when first asked for, with an error of about 1e-7.
 */
export function tabulated(f) {
  const values = [];
  const slopes = [];
  const fill = (low) => {
    values[low - LOWEST] = chebyshev(f, low);
    slopes[low - LOWEST] = derivative(values[low - LOWEST]);
  };
  const at = (panels, x) => {
    const low = Math.floor(x);
    if (panels[low - LOWEST] === undefined) fill(low);
    return clenshaw(panels[low - LOWEST], 2 * (x - low) - 1);
  };
  return { value: (x) => at(values, x), slope: (x) => at(slopes, x) };
}

/** L_T of layers between these levels, which fall: 1/2 sum of (SNR(s) - SNR(t)) e(t). */
export function diffusionCost(noiseError, levels) {
  let cost = 0;
  for (let i = 1; i < levels.length; i++) {
    cost += Math.expm1(levels[i - 1] - levels[i]) * noiseError(levels[i]);
  }
  return cost / 2;
}

/** L_inf: half the integral of the noise's error over the log SNR. */
export function diffusionLimit(noiseError, low, high) {
  const { nodes, weights } = legendre(low, high, PANELS);
  return sum(nodes.map((node, i) => weights[i] * noiseError(node))) / 2;
}

/**
 * What T (L_T - L_inf) tends to (eq-rate), by the noise's error n and its slope n' over logsnr:
 * 1/4 of the integral of (n - n') |dlogsnr/dt| dlogsnr.
 */
export function depthRate(error, schedule) {
  const [high, low] = schedule.ends;
  const { nodes, weights } = legendre(low, high, PANELS);
  const at = (logsnr) => (error.value(logsnr) - error.slope(logsnr)) / schedule.density(logsnr);
  return sum(nodes.map((node, i) => weights[i] * at(node))) / 4;
}

/** The distance of levels on an even grid; null for any other mixture. */
function gridSpacing({ means, stds }) {
  const spacing = means[1] - means[0];
  const even = means.every((mean, k) => Math.abs(mean - means[0] - k * spacing) < 1e-12);
  return even && stds.every((std) => std === 0) ? spacing : null;
}

/**
 * Sums over the noise and over levels k, l of a grid, when level k and noise n are true.
 * `seen(k, ratios, at)` gets in ratios[at + l - k] the likelihood of level l over that of k,
 * exp(n (l - k) step - ((l - k) step)^2 / 2), for a `step` in units of the noise.
 */
export function overLevels(weights, step, { nodes, weights: shares }, seen) {
  const at = weights.length - 1;
  const ratios = new Float64Array(2 * at + 1).fill(1);
  const drops = Array.from({ length: at }, (_, j) => Math.exp(-0.5 * (2 * j + 1) * step * step));
  let total = 0;
  nodes.forEach((noise, i) => {
    const rise = Math.exp(Math.min(noise * step, 700)); // no infinity, where a drop is zero
    const fall = Math.exp(Math.min(-noise * step, 700));
    for (let j = 0; j < at; j++) {
      ratios[at + j + 1] = ratios[at + j] * drops[j] * rise;
      ratios[at - j - 1] = ratios[at - j] * drops[j] * fall;
    }
    for (let k = 0; k <= at; k++) total += shares[i] * weights[k] * seen(k, ratios, at);
  });
  return total;
}

const NODES = normalNodes(91);

/** SNR * mmse of levels on an even grid: as `mmse` on the same nodes, but much faster. */
function gridNoiseError({ weights }, spacing, logsnr) {
  const step = spacing * Math.exp(logsnr / 2);
  const variance = (k, ratios, at) => {
    let [mass, first, second] = [0, 0, 0];
    for (let l = 0; l < weights.length; l++) {
      const share = weights[l] * ratios[at + l - k];
      mass += share;
      first += share * (l - k);
      second += share * (l - k) * (l - k);
    }
    return second / mass - (first / mass) ** 2;
  };
  return step * step * overLevels(weights, step, NODES, variance);
}

/**
 * E e^2 and E e^4 of the noise's error e = sqrt(SNR) (x - x_hat) of a mixture's best denoiser:
 * {square, fourth}, tabulated.
 */
export const errorMoments = memo((mixture) => {
  const spacing = gridSpacing(mixture);
  const onGrid = (logsnr) => gridNoiseError(mixture, spacing, logsnr);
  const anywhere = (logsnr) => Math.exp(logsnr) * mmse(mixture, logsnr);
  const fourth = (logsnr) => Math.exp(2 * logsnr) * fourthMoment(mixture, logsnr);
  return { square: tabulated(spacing === null ? anywhere : onGrid), fourth: tabulated(fourth) };
});
