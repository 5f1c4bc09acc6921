// One step from z_t to z_s for images (arrays of N numbers), and what it costs in bits/dim.

import { alpha, posterior, removed, sigma } from "./gaussian.js";

/** What a step can be written in; the network's output is turned into it. */
export const FORMS = ["image x̂", "noise ε̂", "velocity v̂"];
const GRAY_LEVELS = 256;

/** The network's noise estimate at z in one of the FORMS: x̂, ε̂ or v̂ (eq-solve). */
export function formOf(form, z, eps, logsnr) {
  const [a, s] = [alpha(logsnr), sigma(logsnr)];
  const rules = {
    "image x̂": (noise, i) => (z[i] - s * noise) / a,
    "noise ε̂": (noise) => noise,
    "velocity v̂": (noise, i) => (noise - s * z[i]) / a, // a ε̂ - s x̂, as a² + s² = 1
  };
  return eps.map(rules[form]);
}

/** {z, y, std}: one step is z_s = z · z_t + y · ŷ + std · noise, for ŷ in each form. */
export function stepRule(sampler, form, logsnrS, logsnrT) {
  const [aS, sS, aT, sT] = [alpha(logsnrS), sigma(logsnrS), alpha(logsnrT), sigma(logsnrT)];
  const c = removed(logsnrS, logsnrT);
  if (sampler === "ancestral") {
    const std = sS * Math.sqrt(c);
    const fromZ = posterior(1, 0, logsnrS, logsnrT).mean;
    if (form === "image x̂") return { z: fromZ, y: aS * c, std };
    if (form === "noise ε̂") return { z: aS / aT, y: (-aS / aT) * c * sT, std };
    return { z: fromZ + aS * c * aT, y: -aS * c * sT, std };
  }
  const half = (logsnrS - logsnrT) / 2; // expm1: a difference of two near products loses digits
  if (form === "image x̂") return { z: sS / sT, y: -aS * Math.expm1(-half), std: 0 };
  if (form === "noise ε̂") return { z: aS / aT, y: -sS * Math.expm1(half), std: 0 };
  return { z: aS * aT + sS * sT, y: -sS * aT * Math.expm1(half), std: 0 };
}

/** z_s by a rule; the noise may be missing where the rule has none. */
export function stepBy(rule, z, y, noise) {
  return z.map((value, i) => rule.z * value + rule.y * y[i] + rule.std * (noise?.[i] ?? 0));
}

/** Held within [-1, 1], where all data lie. */
export function clipImage(x) {
  return x.map((value) => Math.min(1, Math.max(-1, value)));
}

/** KL(q(z_s|z_t,x) || p(z_s|z_t)) = ½ (SNR_s - SNR_t) ||x - x̂||², in bits/dim. */
export function stepBits(x, xHat, logsnrS, logsnrT) {
  const error = x.reduce((total, value, i) => total + (value - xHat[i]) ** 2, 0);
  const gained = Math.exp(logsnrT) * Math.expm1(logsnrS - logsnrT);
  return (0.5 * gained * error) / x.length / Math.LN2;
}

/** KL(q(z_1|x) || N(0, I)) in bits/dim (eq-prior-term). */
export function priorBits(x, logsnr) {
  const signal = alpha(logsnr) ** 2;
  const spread = Math.log1p(Math.exp(logsnr)) - signal;
  const total = x.reduce((sum, value) => sum + signal * value ** 2 + spread, 0);
  return (0.5 * total) / x.length / Math.LN2;
}

/** -log p(x|z_0) of gray levels 0 … 255 in bits/dim: a softmax over all levels of each pixel. */
export function reconstructionBits(levels, z, logsnr) {
  const [a, snr] = [alpha(logsnr), Math.exp(logsnr)];
  const centers = encodeLevels(Array.from({ length: GRAY_LEVELS }, (_, k) => k));
  const nats = levels.reduce((sum, level, i) => {
    const logits = centers.map((center) => -0.5 * snr * (z[i] / a - center) ** 2);
    const top = Math.max(...logits);
    const total = logits.reduce((all, logit) => all + Math.exp(logit - top), 0);
    return sum + Math.log(total) + top - logits[level];
  }, 0);
  return nats / levels.length / Math.LN2;
}

/** Gray levels 0 … 255 as numbers in (-1, 1). */
export function encodeLevels(levels) {
  return Array.from(levels, (level) => (2 * level + 1) / GRAY_LEVELS - 1);
}
