// One-dimensional mixtures of Gaussians {weights, means, stds}, whose best denoiser is known.
// Components of width 0 are finite data.
import { alpha } from "./gaussian.js";
import { normalNodes, sigmoid } from "./numerics.js";

export const TWO_BUMPS = { weights: [0.5, 0.5], means: [-1, 1], stds: [0.15, 0.15] };

/**
 * The components of q(z_t) at one level: `look(z)` fills `share` with the probability of each
 * component at this z and returns log q(z).
 */
function componentsAt({ weights, means, stds }, logsnr) {
  const scale = alpha(logsnr);
  const noise = sigmoid(-logsnr);
  const variances = stds.map((std) => (scale * std) ** 2 + noise);
  const centers = means.map((mean) => scale * mean);
  const logs = weights.map((w, k) => Math.log(w) - 0.5 * Math.log(2 * Math.PI * variances[k]));
  const gains = stds.map((std, k) => (scale * std * std) / variances[k]);
  const within = stds.map((std, k) => (std * std * noise) / variances[k]);
  const share = new Float64Array(weights.length);
  const look = (z) => {
    let top = -Infinity;
    for (let k = 0; k < share.length; k++) {
      const offset = z - centers[k];
      share[k] = logs[k] - (0.5 * offset * offset) / variances[k];
      if (share[k] > top) top = share[k];
    }
    let total = 0;
    for (let k = 0; k < share.length; k++) {
      share[k] = Math.exp(share[k] - top);
      total += share[k];
    }
    for (let k = 0; k < share.length; k++) share[k] /= total;
    return top + Math.log(total);
  };
  /** E[x | z, component k]. */
  const mean = (k, z) => means[k] + gains[k] * (z - centers[k]);
  return { share, variances, centers, within, look, mean };
}

/** The posterior mean, after `look(z)`. */
function meanOf({ share, mean }, z) {
  let total = 0;
  for (let k = 0; k < share.length; k++) total += share[k] * mean(k, z);
  return total;
}

/** -log q(z_t) in nats. */
export function energy(mixture, z, logsnr) {
  return -componentsAt(mixture, logsnr).look(z);
}

/** The posterior mean E[x | z_t]. */
export function denoise(mixture, z, logsnr) {
  const components = componentsAt(mixture, logsnr);
  components.look(z);
  return meanOf(components, z);
}

const NODES = { 91: normalNodes(91), 151: normalNodes(151) };

/** The expectation over z_t of `of(squared offset, variance)` summed over the components. */
function expectation(mixture, logsnr, nodes, of) {
  const components = componentsAt(mixture, logsnr);
  const { share, variances, centers, within, look, mean } = components;
  const { nodes: points, weights } = NODES[nodes];
  let total = 0;
  for (let j = 0; j < share.length; j++) {
    const std = Math.sqrt(variances[j]);
    for (let i = 0; i < nodes; i++) {
      const z = centers[j] + std * points[i];
      look(z);
      const middle = meanOf(components, z);
      let value = 0;
      for (let k = 0; k < share.length; k++) {
        const offset = mean(k, z) - middle;
        value += share[k] * of(offset * offset, within[k]);
      }
      total += mixture.weights[j] * weights[i] * value;
    }
  }
  return total;
}

/** E (x - E[x | z_t])^2. */
export function mmse(mixture, logsnr) {
  return expectation(mixture, logsnr, 91, (offset, within) => within + offset);
}

/** E (x - E[x | z_t])^4, by E (d + s n)^4 = d^4 + 6 d^2 s^2 + 3 s^4. */
export function fourthMoment(mixture, logsnr) {
  const of = (offset, within) => offset * offset + 6 * offset * within + 3 * within * within;
  return expectation(mixture, logsnr, 151, of);
}
