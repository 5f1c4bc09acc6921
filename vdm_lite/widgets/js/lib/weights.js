// The eleven recipes of vdm_lite.weighting, and weights that a reader draws.

import { sigmoid } from "./numerics.js";

const EDM_PEAK = -3.307778;

const sech = (x) => 1 / Math.cosh(x);
const sechFall = (logsnr) => 0.5 * Math.tanh(logsnr / 2);
const edm = (logsnr) => Math.exp(-0.5 * ((logsnr - 2.4) / 2.4) ** 2) * (Math.exp(-logsnr) + 0.25);
const edmFall = (logsnr) => (logsnr - 2.4) / 2.4 ** 2 + sigmoid(-logsnr + Math.log(4));

/** Each recipe: the schedule that draws, its weight w, and `fall` = −d log w / d logsnr. */
const RECIPES = {
  ELBO: { schedule: "linear", w: () => 1, fall: () => 0 },
  "noise, cosine": { schedule: "cosine", w: (l) => sech(l / 2), fall: sechFall },
  "velocity, cosine": { schedule: "cosine", w: (l) => Math.exp(-l / 2), fall: () => 0.5 },
  "flow-matching": { schedule: "flow-matching", w: (l) => Math.exp(-l / 2), fall: () => 0.5 },
  "logit-normal": {
    schedule: "logit-normal",
    w: (l) => Math.exp((-l * l) / 8) * (1 + Math.exp(-l / 2)) ** 2,
    fall: (l) => l / 4 + sigmoid(-l / 2),
  },
  InDI: {
    schedule: "flow-matching",
    w: (l) => Math.exp(-l) * sech(l / 4) ** 2,
    fall: (l) => 1 + 0.5 * Math.tanh(l / 4),
  },
  EDM: { schedule: "edm", w: edm, fall: edmFall },
  "EDM-monotonic": {
    schedule: "edm",
    w: (l) => edm(Math.max(l, EDM_PEAK)),
    fall: (l) => (l > EDM_PEAK ? edmFall(l) : 0),
  },
  "P2, cosine": {
    schedule: "cosine",
    w: (l) => sech(l / 2) * sigmoid(-l),
    fall: (l) => sechFall(l) + sigmoid(l),
  },
  "min-SNR": {
    schedule: "cosine",
    w: (l) => sech(l / 2) * Math.min(1, 5 * Math.exp(-l)),
    fall: (l) => sechFall(l) + (l > Math.log(5) ? 1 : 0),
  },
  sigmoid: {
    schedule: "linear",
    w: (l, bias) => sigmoid(bias - l),
    fall: (l, bias) => sigmoid(l - bias),
  },
};

export const RECIPE_NAMES = Object.keys(RECIPES);

/** The weight w of a recipe, up to a constant: logsnr -> w. `bias` is that of the sigmoid. */
export function weightOf(name, bias = 2) {
  const { w } = RECIPES[name];
  return (logsnr) => w(logsnr, bias);
}

/** −dw/dlogsnr of a recipe: the density of p_w before it is normalized. */
export function weightFall(name, bias = 2) {
  const { w, fall } = RECIPES[name];
  return (logsnr) => w(logsnr, bias) * fall(logsnr, bias);
}

/** The name of the schedule that draws a recipe's noise levels. */
export function recipeSchedule(name) {
  return RECIPES[name].schedule;
}

/**
 * A drawn weight: powers of ten at evenly spaced levels between the ends, straight lines between.
 * Returns {w, fall} as functions of logsnr; fall = −dw/dlogsnr.
 */
export function drawnWeight(powers, logsnrMax = 13.3, logsnrMin = -5) {
  const pieces = powers.length - 1;
  const spacing = (logsnrMax - logsnrMin) / pieces;
  const place = (logsnr) => {
    const position = Math.min(pieces, Math.max(0, (logsnr - logsnrMin) / spacing));
    const i = Math.min(pieces - 1, Math.floor(position));
    return [i, position - i];
  };
  const w = (logsnr) => {
    const [i, share] = place(logsnr);
    return 10 ** (powers[i] + share * (powers[i + 1] - powers[i]));
  };
  const fall = (logsnr) => {
    const [i] = place(logsnr);
    return (-Math.LN10 * (powers[i + 1] - powers[i]) * w(logsnr)) / spacing;
  };
  return { w, fall };
}
