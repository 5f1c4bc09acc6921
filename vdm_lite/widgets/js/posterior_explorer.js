// Chapter 4: the top-down posterior q(z_s | z_t, x), for one pixel and for an image.
import { area, bars, line } from "./lib/chart.js";
import { normals } from "./lib/counter.js";
import { alpha, normalDensity, posterior, removed, sigma, transition } from "./lib/gaussian.js";
import { memo } from "./lib/memo.js";
import { linspace } from "./lib/numerics.js";
import { panel } from "./lib/panel.js";
import { encodeLevels } from "./lib/sampling.js";
import { makeSchedule } from "./lib/schedules.js";

const STEP = 0.01; // the shortest step from s to t that the sliders allow
const RANGE = [-3.5, 3.5];
const SEED = 4;
const SIDE = 14; // of the images

/** What is known of z_s, as Gaussians in z_s: from x, from z_t, and from both (eq-posterior). */
export function pixelGaussians(x, z, logsnrS, logsnrT) {
  const step = transition(logsnrS, logsnrT);
  return {
    prior: { mean: alpha(logsnrS) * x, variance: sigma(logsnrS) ** 2 },
    likelihood: { mean: z / step.scale, variance: step.variance / step.scale ** 2 },
    posterior: posterior(z, x, logsnrS, logsnrT),
    share: removed(logsnrS, logsnrT), // of the precision, from x; the rest is from z_t
  };
}

/** z_t, mu_Q and a draw of z_s for an image (N,), by the noise in z_t and that of the draw. */
export function imagesOf(x, noise, fresh, logsnrS, logsnrT) {
  const z = x.map((value, i) => alpha(logsnrT) * value + sigma(logsnrT) * noise[i]);
  const each = x.map((value, i) => posterior(z[i], value, logsnrS, logsnrT));
  const draw = each.map((q, i) => q.mean + Math.sqrt(q.variance) * fresh[i]);
  return { z, mean: each.map((q) => q.mean), draw };
}

/** Two times with s below t: the one that the reader did not move gives way. */
export function timesApart(s, t, movedT) {
  if (t - s > STEP - 1e-9) return { s, t };
  const near = (time) => Number(time.toFixed(10));
  return movedT ? { s: near(t - STEP), t } : { s, t: near(s + STEP) };
}

export function render({ model, el }) {
  const ui = panel(model, el);
  const schedule = makeSchedule("linear", 13.3, -5);
  const curves = ui.chart({
    label: "Three densities of the cleaner latent z at time s",
    x: { label: "cleaner latent zₛ of one pixel", range: RANGE },
    y: { label: "density", range: [0, 1] },
    height: 250,
    wide: true,
  });
  const balance = ui.chart({
    label: "Who decides",
    x: { label: "share of the posterior's precision", range: [0, 1] },
    y: { label: "who decides?", range: [0, 1], ticks: [] },
    height: 104,
    wide: true,
  });
  const images = imageFrames(ui);
  ui.button("Another draw", () => ui.set({ draw: (model.get("draw") % 20) + 1 }));
  let before;
  return ui.show((state) => {
    const { s, t } = timesApart(state.s, state.t, before && state.t !== before.t);
    before = { s, t };
    // Python keeps its own times apart: an answer could overwrite what it sets next.
    if (ui.moved && (s !== state.s || t !== state.t)) ui.set({ s, t });
    const [logsnrS, logsnrT] = [schedule.logsnr(s), schedule.logsnr(t)];
    const pixel = pixelGaussians(state.x, state.z, logsnrS, logsnrT);
    drawDensities(curves, pixel);
    drawShare(balance, pixel.share);
    images(state, logsnrS, logsnrT);
    readOut(ui, pixel, logsnrS, logsnrT);
  });
}

function drawDensities(chart, pixel) {
  // The posterior lies at the bottom, so that the dashes of what it covers show on it.
  const styles = {
    posterior: { color: "posterior", width: 3, label: "posterior: both" },
    likelihood: { color: "likelihood", dash: "3 3", label: "likelihood: what zₜ says" },
    prior: { color: "prior", dash: "8 4", label: "prior: what x says" },
  };
  const marks = Object.entries(styles).flatMap(([name, style]) => {
    const [xs, ys] = bell(pixel[name]);
    return [area(xs, ys, { color: style.color, opacity: 0.13 }), line(xs, ys, style)];
  });
  const peaks = Object.keys(styles).map(
    (name) => 1 / Math.sqrt(2 * Math.PI * pixel[name].variance),
  );
  chart.draw(marks, { y: [0, 1.12 * Math.max(...peaks)] });
}

/** A bell in the shown range, with its points where it bends, however narrow it is. */
function bell({ mean, variance }) {
  const reach = 6 * Math.sqrt(variance);
  const low = Math.max(RANGE[0], mean - reach);
  const high = Math.min(RANGE[1], mean + reach);
  const xs = low < high ? linspace(low, high, 161) : RANGE;
  return [xs, xs.map((z) => normalDensity(z, mean, variance))];
}

function drawShare(chart, share) {
  const bar = (x0, x1) => [{ x0, x1, y0: 0.12, y1: 0.88 }];
  chart.draw([
    bars(bar(0, share), { color: "prior", opacity: 0.75, label: "x, the prior: c" }),
    bars(bar(share, 1), { color: "likelihood", hatch: true, label: "zₜ, the likelihood: 1 − c" }),
  ]);
}

/** Four images in a row; returns what draws them. */
function imageFrames(ui) {
  const labels = ["image x", "noisy image zₜ", "posterior mean", "one draw of zₛ"];
  const frames = labels.map((label) => ui.image({ label, width: SIDE, height: SIDE }));
  return ({ picture, pictures, draw }, logsnrS, logsnrT) => {
    const x = encodeLevels(pictures[picture]);
    const made = imagesOf(x, noiseOf(SEED), noiseOf(SEED + draw), logsnrS, logsnrT);
    [x, made.z, made.mean, made.draw].forEach((values, i) => frames[i].draw(values));
  };
}

const noiseOf = memo((seed) => normals(seed, 0, SIDE ** 2));

function readOut(ui, { prior, likelihood, posterior: both, share }, logsnrS, logsnrT) {
  ui.read("logsnr_s", "log SNR at s", logsnrS);
  ui.read("logsnr_t", "log SNR at t", logsnrT);
  ui.read("share", "share c, from x", share);
  ui.read("from_x", "precision from x", 1 / prior.variance);
  ui.read("from_z", "precision from zₜ", 1 / likelihood.variance);
  ui.read("precision", "posterior: precision", 1 / both.variance);
  ui.read("mean", "posterior: mean", both.mean);
  ui.read("variance", "posterior: variance", both.variance);
}
