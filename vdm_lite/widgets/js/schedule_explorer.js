// Chapters 4 and 7: choose or draw a schedule; the area stays, the variance does not.
import { area, format, line, rule, text } from "./lib/chart.js";
import { diffusionLimit, errorMoments } from "./lib/costs.js";
import { alpha, sigma } from "./lib/gaussian.js";
import { memo } from "./lib/memo.js";
import { TWO_BUMPS } from "./lib/mixtures.js";
import { bisect, legendre, linspace, sum } from "./lib/numerics.js";
import { panel } from "./lib/panel.js";
import { makeSchedule, scheduleOf } from "./lib/schedules.js";

const DRAWN = "drawn";
const SHARE_GAP = 0.02; // the least share of the way between two neighboring points
const LOSS_TOP = 20;
const DENSITY_TOP = 0.25;

const { value: noiseError } = errorMoments(TWO_BUMPS).square;
const { value: noiseFourth } = errorMoments(TWO_BUMPS).fourth;

/** The points, each at least SHARE_GAP above the one before and as far from 0 and 1. */
function risingShares(points) {
  let last = 0;
  return points.map((point, k) => {
    const most = 1 - SHARE_GAP * (points.length - k);
    last = Math.min(Math.max(point, last + SHARE_GAP), most);
    return last;
  });
}

/** A smooth falling curve through shares of the way at even times: as the library's `Drawn`. */
function drawnSchedule(points, high, low) {
  const levels = [0, ...risingShares(points), 1].map((share) => high + share * (low - high));
  const secants = levels.slice(1).map((level, i) => level - levels[i]);
  const last = secants.length - 1;
  const inner = secants.slice(1).map((secant, i) => 2 / (1 / secant + 1 / secants[i]));
  const slopes = [secants[0], ...inner, secants[last]];
  const place = (t) => {
    const i = Math.min(last, Math.floor(t * secants.length));
    return [i, t * secants.length - i];
  };
  const logsnr = (t) => {
    const [i, s] = place(t);
    const bend = s * (1 - s) * (slopes[i] * (1 - s) - slopes[i + 1] * s);
    return levels[i] + secants[i] * s * s * (3 - 2 * s) + bend;
  };
  const slope = (t) => {
    const [i, s] = place(t);
    const bend = slopes[i] * (1 - s) * (1 - 3 * s) + slopes[i + 1] * s * (3 * s - 2);
    return secants.length * (6 * secants[i] * s * (1 - s) + bend);
  };
  const timeOf = (level) => bisect((t) => logsnr(t) - level, 0, 1);
  return scheduleOf({ logsnr, slope, timeOf, ends: [high, low] });
}

function chosenSchedule({ shape, points, logsnr_max: high, logsnr_min: low }) {
  return shape === DRAWN ? drawnSchedule(points, high, low) : makeSchedule(shape, high, low);
}

/** Level, scales and density at the time that the reader has set. */
export function scheduleAt(state) {
  const schedule = chosenSchedule(state);
  const logsnr = schedule.logsnr(state.time);
  const density = -1 / schedule.slope(state.time);
  return { logsnr, alpha: alpha(logsnr), sigma: sigma(logsnr), density };
}

/** Times from 0 to 1, slow near both ends, where many schedules are steep, and their weights. */
function slowTimes() {
  const { nodes, weights } = legendre(0, 1);
  const whole = nodes.map((u) => u ** 3 + (1 - u) ** 3);
  return {
    times: nodes.map((u, i) => u ** 3 / whole[i]),
    timeWeights: nodes.map((u, i) => (3 * weights[i] * (u * (1 - u)) ** 2) / whole[i] ** 2),
  };
}

const { times, timeWeights } = slowTimes();
const segments = legendre(0, 1, 60); // six panels between two points of a drawn curve

/**
 * The diffusion cost in nats, as an integral over time; the variance of its one-sample estimate
 * and the part of it that comes from the time, in nats^2; and the least variance of any schedule.
 */
export function scheduleCosts({ shape, points, logsnr_max: high, logsnr_min: low }) {
  const schedule = chosenSchedule({ shape, points, logsnr_max: high, logsnr_min: low });
  const mean = diffusionLimit(noiseError, low, high);
  const root = diffusionLimit(rootFourth, low, high);
  const over = { square: 0, fourth: 0, cost: 0 };
  times.forEach((t, i) => {
    const [logsnr, speed] = [schedule.logsnr(t), -0.5 * schedule.slope(t)];
    over.square += timeWeights[i] * (speed * noiseError(logsnr)) ** 2;
    over.fourth += timeWeights[i] * speed ** 2 * noiseFourth(logsnr);
    over.cost += timeWeights[i] * speed * noiseError(logsnr);
  });
  return {
    area: shape === DRAWN ? drawnArea(schedule) : over.cost,
    variance: over.fourth - mean ** 2,
    timePart: over.square - mean ** 2,
    least: root ** 2 - mean ** 2,
  };
}

/** The area below the mean loss, with panels that end where a drawn curve has a bend. */
function drawnArea({ logsnr, slope }) {
  const loss = segments.nodes.map((t) => -0.5 * slope(t) * noiseError(logsnr(t)));
  return sum(loss.map((each, i) => segments.weights[i] * each));
}

function rootFourth(logsnr) {
  return Math.sqrt(noiseFourth(logsnr));
}

/** What the charts show: levels, scales, densities and mean losses at many times. */
export function scheduleCurves(state) {
  const schedule = chosenSchedule(state);
  const at = [0, ...times.filter((_, i) => i % 16 === 8), ...linspace(0, 1, 161)];
  const t = at.filter((time) => time > 1e-4 && time < 1 - 1e-4).sort((a, b) => a - b);
  const shown = [0, ...t, 1];
  const logsnr = shown.map(schedule.logsnr);
  const slope = shown.map(schedule.slope);
  return {
    t: shown,
    logsnr,
    alpha: logsnr.map(alpha),
    sigma: logsnr.map(sigma),
    density: slope.map((each) => -1 / each),
    loss: slope.map((each, i) => -0.5 * each * noiseError(logsnr[i])),
  };
}

/** The density of least variance (eq-best-density), at even levels between the ends. */
export function bestDensity({ logsnr_max: high, logsnr_min: low }) {
  const levels = linspace(low, high, 181);
  const total = 2 * diffusionLimit(rootFourth, low, high);
  return { levels, density: levels.map((level) => rootFourth(level) / total) };
}

/** The state after point k was drawn to a level: no further than its neighbors let it. */
export function drawPoint(state, k, level) {
  const { logsnr_max: high, logsnr_min: low } = state;
  const schedule = chosenSchedule(state);
  const count = state.points.length;
  const share = (each) => Number(((high - each) / (high - low)).toFixed(4));
  const even = Array.from({ length: count }, (_, i) => schedule.logsnr((i + 1) / (count + 1)));
  const points = risingShares(even.map(share));
  const [before, after] = [points[k - 1] ?? 0, points[k + 1] ?? 1];
  points[k] = Math.min(after - SHARE_GAP, Math.max(before + SHARE_GAP, share(level)));
  return { shape: DRAWN, points };
}

function drawDensity(chart, state, curves, logsnr) {
  const { levels, density } = bestDensity(state);
  const best = area(levels, density, { color: "posterior", label: "best density p*" });
  const highest = Math.max(...curves.density.slice(1, -1), ...(state.best ? density : []));
  chart.draw(
    [
      ...(state.best ? [best] : []),
      line(curves.logsnr, curves.density, { color: "latent", label: "p(λ) of the schedule" }),
      rule({ x: logsnr }, { dash: "2 3", label: "the level at time t" }),
    ],
    { y: [0, Math.min(2 * DENSITY_TOP, Math.max(DENSITY_TOP, 1.05 * highest))] },
  );
}

/** Where the loss leaves the frame: how high it goes. */
function peakNote(losses) {
  const peak = Math.max(...losses);
  const words = `up to ${format(peak, 3)} nats, above the frame`;
  return peak > LOSS_TOP ? [text(0.98, 0.91 * LOSS_TOP, words, { anchor: "end" })] : [];
}

export function render({ model, el }) {
  const ui = panel(model, el);
  const time = { label: "time t", range: [0, 1] };
  const level = { label: "log SNR λ", range: [-15, 15] };
  const curve = ui.chart({ label: "Log SNR over time", x: time, y: level, height: 260 });
  const loss = ui.chart({
    label: "Mean one-sample loss over time",
    x: time,
    y: { label: "mean loss in nats", range: [0, LOSS_TOP] },
    height: 260,
  });
  const density = ui.chart({
    label: "Density over noise levels",
    x: level,
    y: { label: "density p(λ)", range: [0, DENSITY_TOP] },
  });
  const scales = ui.chart({
    label: "Signal and noise over time",
    x: time,
    y: { label: "scale", range: [0, 1] },
  });
  const costsOf = memo(scheduleCosts);
  return ui.show((state) => {
    const { shape, points, logsnr_max, logsnr_min } = state;
    const costs = costsOf({ shape, points, logsnr_max, logsnr_min });
    const curves = scheduleCurves(state);
    const now = scheduleAt(state);
    const here = rule({ x: state.time }, { dash: "2 3", label: "time t" });
    curve.draw([
      line(curves.t, curves.logsnr, { color: "latent", label: "λ(t); drag the dots" }),
      here,
    ]);
    loss.draw([
      area(curves.t, curves.loss, { color: "posterior", label: "area: the diffusion cost" }),
      line(curves.t, curves.loss, { color: "posterior" }),
      rule({ y: costs.area }, { color: "data", dash: "2 3", label: "its mean over time" }),
      ...peakNote(curves.loss),
    ]);
    drawDensity(density, state, curves, now.logsnr);
    scales.draw([
      line(curves.t, curves.alpha, { color: "data", label: "α, signal" }),
      line(curves.t, curves.sigma, { color: "noise", dash: "6 4", label: "σ, noise" }),
      here,
    ]);
    const schedule = chosenSchedule(state);
    const even = state.points.map((_, k) => (k + 1) / (state.points.length + 1));
    curve.handles(
      even.map((t) => ({ x: t, y: schedule.logsnr(t) })),
      (k, { y }) => ui.set(drawPoint(ui.state(), k, y)),
      { labels: even.map((t) => `log SNR at t = ${t}`), color: "latent", step: 0.2 },
    );
    ui.read("area", "diffusion cost (area)", costs.area, { unit: "nats" });
    ui.read("variance", "variance of one sample", costs.variance, { unit: "nats²" });
    ui.read("timePart", "of it, from the time", costs.timePart, { unit: "nats²" });
    ui.read("least", "least variance possible", costs.least, { unit: "nats²" });
    ui.read("logsnr", "log SNR λ at time t", now.logsnr);
    ui.read("alpha", "signal α at time t", now.alpha);
    ui.read("sigma", "noise σ at time t", now.sigma);
    ui.read("density", "density p at this level", now.density);
  });
}
