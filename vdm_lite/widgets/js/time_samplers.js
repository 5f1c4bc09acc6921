// Chapter 10: the loss of a batch of the two-bump toy under five samplers of the times.

import { area, format, line, rule, text } from "./lib/chart.js";
import { errorMoments } from "./lib/costs.js";
import { source } from "./lib/counter.js";
import { alpha, sigma } from "./lib/gaussian.js";
import { memo } from "./lib/memo.js";
import { TWO_BUMPS } from "./lib/mixtures.js";
import { legendre } from "./lib/numerics.js";
import { panel } from "./lib/panel.js";
import { makeSchedule } from "./lib/schedules.js";

export const SAMPLERS = [
  "uniform",
  "low discrepancy",
  "jittered strata",
  "adaptive",
  "minimum variance",
];
const CLEANEST = 10;
const NOISIEST = -8;
const SPAN = CLEANEST - NOISIEST;
const BINS = 1000;
const BATCHES = 1000;

/** The named schedule between the chapter's end points. */
const scheduleOf = memo((name) => makeSchedule(name, CLEANEST, NOISIEST));

// The exact variance

const { square: second, fourth } = errorMoments(TWO_BUMPS);

/** E e^2 and E e^4 of the exact denoiser's noise error at a level. */
function noiseMoments(logsnr) {
  return { mean: second.value(logsnr), square: fourth.value(logsnr) };
}

/** Nodes and weights for u in [0, 1], dense near both ends, where schedules may be steep. */
function shiftNodes(batch) {
  const { nodes, weights } = legendre(0, 1, Math.max(2, Math.ceil(128 / batch)));
  const places = nodes.map((u) => u ** 2 * (3 - 2 * u));
  return { places, weights: weights.map((weight, j) => weight * 6 * nodes[j] * (1 - nodes[j])) };
}

/**
 * Mean, and variance of the batch mean for independent, shifted and jittered points, of
 * `value(t)`, a function of time: {mean, independent, shifted, jittered}.
 */
function timeParts(value, batch) {
  const { places, weights } = shiftNodes(batch);
  const values = Array.from({ length: batch }, (_, i) =>
    Array.from(places, (u) => value((i + u) / batch)),
  );
  const cells = values.map((cell) => nodeSum(cell, weights));
  const mean = cells.reduce((total, cell) => total + cell, 0) / batch;
  const shift = Array.from(
    places,
    (_, j) => values.reduce((total, cell) => total + cell[j], 0) / batch,
  );
  let [all, within] = [0, 0];
  values.forEach((cell, i) => {
    all += nodeSpread(cell, weights, mean) / batch;
    within += nodeSpread(cell, weights, cells[i]) / batch;
  });
  return {
    mean,
    independent: all / batch,
    shifted: nodeSpread(shift, weights, mean),
    jittered: within / batch,
  };
}

function nodeSum(values, weights) {
  let total = 0;
  for (let j = 0; j < values.length; j++) total += weights[j] * values[j];
  return total;
}

function nodeSpread(values, weights, center) {
  let total = 0;
  for (let j = 0; j < values.length; j++) total += weights[j] * (values[j] - center) ** 2;
  return total;
}

/** Both parts of the variance with uniform times, by schedule and batch size. */
const uniformParts = memo((schedule, batch) => {
  const { logsnr, slope } = scheduleOf(schedule);
  const parts = timeParts((t) => -0.5 * slope(t) * noiseMoments(logsnr(t)).mean, batch);
  return { ...parts, rest: uniformRest(schedule) };
});

/** E_t Var(l | t) for one coordinate. */
const uniformRest = memo((schedule) => {
  const { logsnr, slope } = scheduleOf(schedule);
  const { places, weights } = shiftNodes(1);
  const values = Array.from(places, (t) => {
    const { mean, square } = noiseMoments(logsnr(t));
    return (slope(t) / 2) ** 2 * (square - mean ** 2);
  });
  return nodeSum(values, weights);
});

/** Levels with weights for integrals between the ends, and both moments there. */
const densityNodes = memo(() => {
  const { nodes, weights } = legendre(NOISIEST, CLEANEST);
  return { weights, moments: Array.from(nodes, (level) => noiseMoments(level)) };
});

/**
 * The loss at a level to which a density is proportional: the mean for "adaptive", the root mean
 * square over `dimension` coordinates (per coordinate) for "minimum variance".
 */
function densityHeight(kind, dimension, { mean, square }) {
  return kind === "adaptive" ? mean : Math.sqrt((square - mean ** 2) / dimension + mean ** 2);
}

/** Variance of the batch mean with levels from a density, low discrepancy below it. */
function densityParts(kind, dimension, batch) {
  const { weights, moments } = densityNodes();
  const heights = moments.map((each) => densityHeight(kind, dimension, each));
  const total = nodeSum(heights, weights);
  const noisy = moments.map(({ mean, square }, j) => (square - mean ** 2) / heights[j]);
  const rest = (total * nodeSum(noisy, weights)) / 4 / dimension / batch;
  if (kind === "adaptive") return { times: 0, rest }; // the loss has the same mean at every level
  const masses = densityMasses(kind, dimension);
  const { shifted } = timeParts((u) => {
    const each = noiseMoments(CLEANEST - SPAN * warpTime(u, masses).t);
    return (total * each.mean) / 2 / densityHeight(kind, dimension, each);
  }, batch);
  return { times: shifted, rest };
}

/**
 * The variance of the mean loss of a batch, per coordinate of D copies of the toy (eq-copies), in
 * its two parts for each sampler: {truth, parts: [{times, rest}]}, in nats and nats^2.
 */
export function exactVariances(schedule, dimension, batch) {
  const { mean, independent, shifted, jittered, rest } = uniformParts(schedule, batch);
  const noise = rest / dimension / batch;
  const parts = [independent, shifted, jittered].map((times) => ({ times, rest: noise }));
  for (const kind of SAMPLERS.slice(3)) parts.push(densityParts(kind, dimension, batch));
  return { truth: mean, parts };
}

// The five samplers

/** Both moments at two Gauss points in each bin of a linear schedule's time. */
const binMoments = memo(() => {
  const width = SPAN / BINS;
  const at = (bin, point) => noiseMoments(CLEANEST - width * (bin + 0.5 + point / Math.sqrt(12)));
  return Array.from({ length: BINS }, (_, bin) => [at(bin, -1), at(bin, 1)]);
});

/** The running sums of a density's bins over a linear schedule's time; the last one is 1. */
const densityMasses = memo((kind, dimension) => {
  let total = 0;
  const upper = binMoments().map((pair) => {
    for (const each of pair) total += densityHeight(kind, dimension, each);
    return total;
  });
  return upper.map((sum) => sum / total);
});

/** A uniform time warped to the bins with these running sums, and the density there. */
function warpTime(u, upper) {
  let [low, high] = [0, upper.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (upper[middle] > u) high = middle;
    else low = middle + 1;
  }
  const lower = low > 0 ? upper[low - 1] : 0;
  const mass = upper[low] - lower;
  const inside = Math.min(1, Math.max(0, (u - lower) / mass));
  return { t: (low + inside) / upper.length, p: upper.length * mass };
}

/** The random numbers of one batch: for the times (in [0, 1)), and for its examples and noises. */
function drawBatch(random, batch, dimension) {
  const { means, stds } = TWO_BUMPS;
  const many = batch * dimension;
  const [shift] = random.uniforms(1);
  const [alone, jitter] = [random.uniforms(batch), random.uniforms(batch)];
  const bumps = random.uniforms(many).map((u) => (u < 0.5 ? 0 : 1));
  const x = random.normals(many).map((n, i) => means[bumps[i]] + stds[bumps[i]] * n);
  return { shift, alone, jitter, x, noise: random.normals(many) };
}

/** The first batch that a seed draws. */
export function firstBatch(seed, batch, dimension) {
  return drawBatch(source(seed), batch, dimension);
}

/** Times of a batch and their densities from five samplers: [{t: [batch], p: [batch]}]. */
export function batchTimes({ shift, alone, jitter }, dimension) {
  const batch = alone.length;
  const ones = alone.map(() => 1);
  const even = alone.map((_, i) => (shift + i / batch) % 1);
  // In order: the mean of the batch does not see which example has which time.
  const strata = jitter.map((u, i) => Math.min((i + u) / batch, 1 - Number.EPSILON));
  const warped = SAMPLERS.slice(3).map((kind) => {
    const masses = densityMasses(kind, dimension);
    const found = even.map((u) => warpTime(u, masses));
    return { t: found.map(({ t }) => t), p: found.map(({ p }) => p) };
  });
  return [{ t: alone, p: ones }, { t: even, p: ones }, { t: strata, p: ones }, ...warped];
}

/** Log SNR, and its fall per unit of time, at the times of one sampler: a density has its own. */
function levelAt(sampler, schedule, t) {
  if (sampler >= 3) return { level: CLEANEST - SPAN * t, fall: SPAN };
  const { logsnr, slope } = scheduleOf(schedule);
  return { level: logsnr(t), fall: -slope(t) };
}

/** What a level does to two equal bumps at -far and far: x_hat = gain z + pull tanh(turn z). */
function bumpsAt(logsnr) {
  const [a, s] = [alpha(logsnr), sigma(logsnr)];
  const [far, width] = [TWO_BUMPS.means[1], TWO_BUMPS.stds[1]];
  const v = (a * width) ** 2 + s ** 2;
  return { a, s, gain: (a * width ** 2) / v, pull: (far * s ** 2) / v, turn: (a * far) / v };
}

/** ||x - E[x | z]||^2 of one example, whose coordinates start at `from`. */
function exampleError(x, noise, from, dimension, logsnr) {
  const { a, s, pull, gain, turn } = bumpsAt(logsnr);
  let total = 0;
  for (let i = from; i < from + dimension; i++) {
    const z = a * x[i] + s * noise[i];
    total += (x[i] - gain * z - pull * Math.tanh(turn * z)) ** 2;
  }
  return total;
}

/** The loss of a batch per coordinate, 1/2 (-dlambda/dt) SNR ||x - x_hat||^2 / p, by sampler. */
export function batchLosses(schedule, dimension, { x, noise, ...uniforms }) {
  return batchTimes(uniforms, dimension).map(({ t, p }, sampler) => {
    const losses = t.map((time, i) => {
      const { level, fall } = levelAt(sampler, schedule, time);
      const error = exampleError(x, noise, i * dimension, dimension, level);
      return (fall * Math.exp(level) * error) / 2 / p[i];
    });
    return losses.reduce((sum, loss) => sum + loss, 0) / t.length / dimension;
  });
}

/** Mean and standard deviation of sampled losses, and the standard error of the latter. */
export function sampleMoments(losses) {
  const mean = losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
  const power = (n) => losses.reduce((sum, loss) => sum + (loss - mean) ** n, 0) / losses.length;
  const [second, fourth] = [power(2), power(4)];
  const std = Math.sqrt(second);
  return { mean, std, error: Math.sqrt((fourth - second ** 2) / losses.length) / 2 / std };
}

/** What the widget's table says once `count` batches are drawn: by sampler, as sampleMoments. */
export function sampledTable({ schedule, copies, batch, seed }, count) {
  const random = source(seed);
  const losses = SAMPLERS.map(() => []);
  for (let b = 0; b < count; b++) {
    batchLosses(schedule, copies, drawBatch(random, batch, copies)).forEach((loss, i) =>
      losses[i].push(loss),
    );
  }
  return losses.map(sampleMoments);
}

// The picture

/** A histogram as a staircase over [low, high], its highest step at 1: {xs, ys}. */
export function staircase(losses, low, high, steps = 32) {
  const counts = new Array(steps).fill(0);
  for (const loss of losses) {
    const step = Math.floor(((loss - low) / (high - low)) * steps);
    if (step >= 0 && step < steps) counts[step] += 1;
  }
  const top = Math.max(1, ...counts);
  const edge = (k) => low + ((high - low) * k) / steps;
  return {
    xs: counts.flatMap((_, k) => [edge(k), edge(k + 1)]),
    ys: counts.flatMap((count) => [count / top, count / top]),
  };
}

/** One row for each sampler, the first one on top: a histogram, its name, one exact deviation. */
function drawHistograms(chart, losses, { truth, parts }) {
  const stds = parts.map(totalDeviation);
  const [low, high] = [
    Math.max(0, truth - 3.6 * Math.max(...stds)),
    truth + 3.6 * Math.max(...stds),
  ];
  const rows = SAMPLERS.flatMap((name, i) => {
    const floor = SAMPLERS.length - 1 - i + 0.22;
    const { xs, ys } = staircase(
      losses[i],
      Math.max(low, truth - 4 * stds[i]),
      Math.min(high, truth + 4 * stds[i]),
    );
    const ends = [Math.max(low, truth - stds[i]), truth + stds[i]];
    const label = (words) => (i === 0 ? words : undefined);
    return [
      area(
        xs,
        ys.map((y) => floor + 0.66 * y),
        { base: floor, color: "latent", opacity: 0.55, label: label("batch losses") },
      ),
      line(ends, [floor - 0.1, floor - 0.1], {
        color: "network",
        width: 4,
        label: label("one standard deviation either way, exact"),
      }),
      text(high, floor + 0.53, name, { anchor: "end" }),
    ];
  });
  const middle = rule(
    { x: truth },
    { color: "data", dash: "4 3", width: 1.5, label: "exact loss" },
  );
  chart.draw([...rows, middle], { x: [low, high] });
}

/** A tick at each level that one batch visits, one row for each sampler. */
function drawLevels(chart, schedule, times) {
  const marks = times.flatMap(({ t }, i) => {
    const floor = SAMPLERS.length - 1 - i + 0.12;
    const levels = t.map((time) => levelAt(i, schedule, time).level);
    const xs = levels.flatMap((level) => [level, level, NaN]);
    const ys = levels.flatMap(() => [floor, floor + 0.4, NaN]);
    return [
      line(xs, ys, { color: "latent", width: 1.2 }),
      text(CLEANEST, floor + 0.5, SAMPLERS[i], { anchor: "end" }),
    ];
  });
  chart.draw(marks);
}

function totalDeviation({ times, rest }) {
  return Math.sqrt(times + rest);
}

function tableRows(batch, { parts }, sampled) {
  const [uniform] = parts.map(({ times, rest }) => times + rest);
  return parts.map(({ times, rest }, i) => {
    const drawn = sampled[i];
    return [
      SAMPLERS[i],
      format(Math.sqrt(times + rest)),
      `${format((100 * times) / (times + rest), 3)} %`,
      format((batch * uniform) / (times + rest)),
      drawn ? `${format(drawn.std)} ± ${format(drawn.error, 2)}` : "–",
      drawn ? format(drawn.mean) : "–",
    ];
  });
}

export function render({ model, el }) {
  const ui = panel(model, el);
  const rows = { label: "", range: [0, SAMPLERS.length], ticks: [] };
  const histograms = ui.chart({
    label: "Histograms of the batch loss under five samplers",
    x: { label: "loss of a batch, nats per coordinate", range: [0, 8] },
    y: rows,
    height: 430,
  });
  const visits = ui.chart({
    label: "The noise levels that the first batch visits under five samplers",
    x: { label: "log SNR λ of the examples of one batch", range: [NOISIEST, CLEANEST] },
    y: rows,
    height: 430,
  });
  const columns = [
    "sampler",
    "std",
    "share of times",
    "like uniform k =",
    "std drawn ± error",
    "mean drawn",
  ];
  const table = ui.table({ label: "Loss of a batch, nats per coordinate", columns });
  ui.button("Draw others", () => ui.set({ seed: (model.get("seed") % 999) + 1 }));
  return ui.show((state) => {
    const { copies, batch, schedule } = state;
    const exact = exactVariances(schedule, copies, batch);
    const random = source(state.seed);
    const losses = SAMPLERS.map(() => []);
    let due = 0;
    const add = () => {
      const draws = drawBatch(random, batch, copies);
      if (losses[0].length === 0) drawLevels(visits, schedule, batchTimes(draws, copies));
      batchLosses(schedule, copies, draws).forEach((loss, i) => losses[i].push(loss));
    };
    const draw = () => {
      due = performance.now() + 150;
      drawHistograms(histograms, losses, exact);
      table.draw(tableRows(batch, exact, losses[0].length > 9 ? losses.map(sampleMoments) : []));
      ui.read("drawn", "batches drawn", losses[0].length);
    };
    for (const end = performance.now() + 5; losses[0].length < BATCHES && performance.now() < end;)
      add();
    ui.read("truth", "exact loss per coordinate", exact.truth, { unit: "nats" });
    const stds = exact.parts.map(totalDeviation);
    ui.read("uniform", "std with uniform times", stds[0], { unit: "nats" });
    ui.read("least", "std with minimum variance", stds[4], { unit: "nats" });
    draw();
    ui.later(() => {
      const more = losses[0].length < BATCHES;
      if (more) add();
      if (!more || performance.now() > due) draw();
      return more;
    });
  });
}
