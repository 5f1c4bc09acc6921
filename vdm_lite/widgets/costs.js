// The diffusion cost of a denoiser whose error is known, for T layers and for infinitely many.
//
// An error is a function of logsnr: the error of the noise, SNR * E||x - x_hat||^2, which stays
// of the same size over the whole range. All costs are in nats.
import { mmse } from "./mixtures.js";
import { legendre } from "./numerics.js";

const PANEL_POINTS = 20;

/** Chebyshev coefficients of a function on [low, low + 1]. */
function panelCoefficients(f, low) {
  const angles = Array.from({ length: PANEL_POINTS }, (_, j) => (Math.PI * (j + 0.5)) / PANEL_POINTS);
  const values = angles.map((angle) => f(low + (1 + Math.cos(angle)) / 2));
  return values.map((_, k) => {
    const projection = angles.reduce((sum, angle, j) => sum + values[j] * Math.cos(k * angle), 0);
    return ((k === 0 ? 1 : 2) * projection) / PANEL_POINTS;
  });
}

/** Coefficients of the derivative of a Chebyshev series over a panel of length 1. */
function panelSlopes(coefficients) {
  const slopes = new Array(coefficients.length + 1).fill(0);
  for (let k = coefficients.length - 1; k > 0; k--) slopes[k - 1] = slopes[k + 1] + 4 * k * coefficients[k];
  slopes[0] /= 2;
  return slopes.slice(0, -2);
}

/** A Chebyshev series at x in [-1, 1], by Clenshaw's recurrence. */
function panelValue(coefficients, x) {
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
 * Panels of length 1 are interpolated when first asked for; the error is about 1e-7.
 */
export function tabulated(f) {
  const panels = new Map();
  const panel = (low) => {
    if (!panels.has(low)) {
      const values = panelCoefficients(f, low);
      panels.set(low, { values, slopes: panelSlopes(values) });
    }
    return panels.get(low);
  };
  const at = (kind) => (x) => {
    const low = Math.floor(x);
    return panelValue(panel(low)[kind], 2 * (x - low) - 1);
  };
  return { value: at("values"), slope: at("slopes") };
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
  const { nodes, weights } = legendre(low, high);
  return nodes.reduce((cost, node, i) => cost + weights[i] * noiseError(node), 0) / 2;
}

/**
 * What T (L_T - L_inf) tends to (eq-rate), by the noise's error n and its slope n' over logsnr:
 * 1/4 of the integral of (n - n') |dlogsnr/dt| dlogsnr.
 */
export function depthRate(error, schedule) {
  const [high, low] = schedule.ends;
  const { nodes, weights } = legendre(low, high);
  const at = (logsnr) => (error.value(logsnr) - error.slope(logsnr)) / schedule.density(logsnr);
  return nodes.reduce((rate, node, i) => rate + weights[i] * at(node), 0) / 4;
}

const noiseErrors = new Map();

/** The noise's error SNR * mmse of a mixture's best denoiser, tabulated once for each mixture. */
export function bestNoiseError(mixture) {
  const key = JSON.stringify([mixture.weights, mixture.means, mixture.stds]);
  if (!noiseErrors.has(key)) {
    noiseErrors.set(key, tabulated((logsnr) => Math.exp(logsnr) * mmse(mixture, logsnr)));
  }
  return noiseErrors.get(key);
}
