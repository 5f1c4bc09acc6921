// The Gaussian core of vdm_lite for one coordinate: everything in logsnr, variance preserving.
import { sigmoid } from "./numerics.js";

/** Signal scale. */
export function alpha(logsnr) {
  return Math.sqrt(sigmoid(logsnr));
}

/** Noise scale. */
export function sigma(logsnr) {
  return Math.sqrt(sigmoid(-logsnr));
}

/** The share of noise variance that one step back removes, c = -expm1(lambda_t - lambda_s). */
export function removed(logsnrS, logsnrT) {
  return -Math.expm1(logsnrT - logsnrS);
}

/** Scale and variance of q(z_t | z_s) (eq-transition). */
export function transition(logsnrS, logsnrT) {
  const scale = alpha(logsnrT) / alpha(logsnrS);
  return { scale, variance: sigmoid(-logsnrT) * removed(logsnrS, logsnrT) };
}

/** q(z_s | z_t, x) (eq-posterior). */
export function posterior(z, x, logsnrS, logsnrT) {
  const c = removed(logsnrS, logsnrT);
  const [varS, varT] = [sigmoid(-logsnrS), sigmoid(-logsnrT)];
  const fromZ = ((alpha(logsnrT) / alpha(logsnrS)) * varS) / varT;
  return { mean: fromZ * z + alpha(logsnrS) * c * x, variance: varS * c };
}

export function normalDensity(x, mean, variance) {
  return Math.exp((-0.5 * (x - mean) ** 2) / variance) / Math.sqrt(2 * Math.PI * variance);
}

/** KL(q || p) of two Gaussians in nats (eq-gaussian-kl). */
export function normalKl(meanQ, varQ, meanP, varP) {
  const excess = (varQ - varP) / varP;
  const logRatio = excess > -0.5 ? Math.log1p(excess) : Math.log(varQ) - Math.log(varP);
  return 0.5 * (excess - logRatio + (meanQ - meanP) ** 2 / varP);
}
