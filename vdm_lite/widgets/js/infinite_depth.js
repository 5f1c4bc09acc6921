// Chapter 6: rectangles under an error curve, and the gap to infinitely many layers.
import { area, dots, line } from "./lib/chart.js";
import { depthRate, diffusionCost, diffusionLimit, errorMoments, tabulated } from "./lib/costs.js";
import { memo } from "./lib/memo.js";
import { legendre, linspace } from "./lib/numerics.js";
import { panel } from "./lib/panel.js";
import { makeSchedule } from "./lib/schedules.js";

const VARIANCE = 2.5; // of the Gaussian data
const BELIEF = 3; // where the wrong denoiser believes x to be, or at the opposite
const WRONG = "Gaussian, wrong denoiser";
const SIZES = legendre(Math.log(1e-6), Math.log(9), 16); // of log |noise|
const DEPTHS = Array.from({ length: 11 }, (_, k) => 2 ** k); // of the dots
const MOST_OUTLINES = 128; // more would be one solid color, and teeth finer than a hatch
const AXIS_LABELS = {
  SNR: { x: { label: "v = SNR" }, y: { label: "e(v) = E‖x − x̂‖²" } },
  "log SNR": { x: { label: "log SNR λ" }, y: { label: "v·e(v) = E‖ε − ε̂‖²" } },
};

/** SNR * E(x - x_hat)^2 of the denoiser that believes in x = ±3, on N(0, 2.5) data. */
export function wrongNoiseError(logsnr) {
  const snr = Math.exp(logsnr);
  const spread = Math.sqrt(1 + VARIANCE * snr);
  const { nodes, weights } = SIZES;
  let excess = 0;
  nodes.forEach((size, i) => {
    const n = Math.exp(size);
    const best = (VARIANCE * Math.sqrt(snr) * n) / spread;
    const wrong = BELIEF * Math.tanh(BELIEF * Math.sqrt(snr) * spread * n);
    excess +=
      weights[i] * Math.sqrt(2 / Math.PI) * Math.exp((-n * n) / 2) * n * (wrong - best) ** 2;
  });
  return snr * (VARIANCE / (1 + VARIANCE * snr) + excess);
}

const wrongTable = tabulated(wrongNoiseError);

function errorOf(mixtures, data) {
  return data === WRONG ? wrongTable : errorMoments(mixtures[data]).square;
}

function levelsOf(schedule, layers) {
  return linspace(0, 1, layers + 1).map((t) => schedule.logsnr(t));
}

/** L_T in nats. */
export function costOf(mixtures, { layers, data, path, cleanest, noisiest }) {
  const levels = levelsOf(makeSchedule(path, cleanest, noisiest), layers);
  return diffusionCost(errorOf(mixtures, data).value, levels);
}

/** L_T, L_inf, their gap, T times the gap, and what that tends to, in nats. */
export function numbersOf(mixtures, state) {
  const { layers, data, path, cleanest, noisiest } = state;
  const error = errorOf(mixtures, data);
  const cost = costOf(mixtures, state);
  const limit = diffusionLimit(error.value, noisiest, cleanest);
  const gap = cost - limit;
  const rate = depthRate(error, makeSchedule(path, cleanest, noisiest));
  return { cost, limit, gap, scaled: layers * gap, rate };
}

/**
 * The error curve and the tops of the rectangles on a fine grid, over v = SNR or over its log.
 * Over v the curve is e(v) and the tops are flat; over log v both are multiplied by v, so that
 * every area stays the same. Returns {xs, curve, tops, edges}, `edges` where a layer begins.
 */
export function makePicture(mixtures, { layers, data, path, cleanest, noisiest, axis }) {
  const error = errorOf(mixtures, data).value;
  const levels = levelsOf(makeSchedule(path, cleanest, noisiest), layers);
  const each = Math.max(2, Math.ceil(480 / layers));
  const picture = { xs: [], curve: [], tops: [], edges: [] };
  for (let i = layers; i > 0; i--) {
    const height = error(levels[i]) * Math.exp(-levels[i]);
    picture.edges.push(picture.xs.length);
    for (const logsnr of linspace(levels[i], levels[i - 1], each)) {
      const snr = Math.exp(logsnr);
      picture.xs.push(axis === "SNR" ? snr : logsnr);
      picture.curve.push(error(logsnr) / (axis === "SNR" ? snr : 1));
      picture.tops.push(height * (axis === "SNR" ? 1 : snr));
    }
  }
  return picture;
}

/** The sides and tops of all rectangles, as one line. */
function rectangleLine({ xs, tops, edges }) {
  const [across, up] = [[], []];
  edges.forEach((first, i) => {
    const end = edges[i + 1] ?? xs.length;
    across.push(xs[first], ...xs.slice(first, end), xs[end - 1]);
    up.push(0, ...tops.slice(first, end), 0);
  });
  return line(across, up, { color: "network", width: 1 });
}

function drawArea(chart, picture, { layers, axis }) {
  const { xs, curve, tops } = picture;
  const higher = tops.map((top, i) => Math.max(top, curve[i]));
  const lower = tops.map((top, i) => Math.min(top, curve[i]));
  const fine = layers > MOST_OUTLINES;
  const look = fine ? { opacity: 0.6 } : { hatch: true };
  const between = (ys, base, style) =>
    ys.some((y, i) => y > base[i] * (1 + 1e-9)) ? [area(xs, ys, { base, ...look, ...style })] : [];
  const marks = [
    area(xs, curve, { color: "posterior", label: "under the error curve" }),
    ...between(higher, curve, { color: "network", label: "rectangles above it" }),
    ...between(curve, lower, { color: "noise", label: "missed by them" }),
    ...(fine ? [] : [rectangleLine(picture)]),
    line(xs, curve, { color: "posterior" }),
  ];
  // With one or two layers a top over log SNR may be hundreds of times as high as the curve.
  const top = 1.05 * Math.min(Math.max(...higher), 5 * Math.max(...curve));
  chart.draw(marks, { x: [axis === "SNR" ? 0 : xs[0], xs.at(-1)], y: [0, top] });
}

/** The gap at all DEPTHS, the 1/T law, and the depth that the reader has set. */
function drawGaps(chart, layers, gaps, { gap, rate }) {
  const law = [1, DEPTHS.at(-1)].map((depth) => Math.abs(rate) / depth);
  const some = (chosen, style) => {
    const kept = DEPTHS.map((_, i) => i).filter((i) => chosen(gaps[i]));
    const at = [kept.map((i) => DEPTHS[i]), kept.map((i) => Math.abs(gaps[i]))];
    return kept.length ? [dots(...at, { color: "network", ...style })] : [];
  };
  const sizes = [...law, ...gaps.map(Math.abs)];
  const high = Math.max(...sizes);
  const low = Math.max(Math.min(...sizes), 1e-9 * high); // a gap may be 0 where it changes its sign
  chart.draw(
    [
      line([1, DEPTHS.at(-1)], law, { color: "posterior", dash: "6 4", label: "the 1/T law" }),
      ...some((each) => each >= 0, { label: "L(T) above L(∞)" }),
      ...some((each) => each < 0, { hollow: true, label: "L(T) below L(∞)" }),
      dots([layers], [Math.abs(gap)], { color: "ink", r: 6, label: "at your T" }),
    ],
    { y: [low / 1.5, high * 1.5] },
  );
}

export function render({ model, el }) {
  const ui = panel(model, el);
  const x = { label: "", range: [0, 1] };
  const y = { label: "", range: [0, 1] };
  const areas = ui.chart({
    label: "Rectangles over the error curve",
    x,
    y,
    height: 280,
    wide: true,
  });
  const depths = { label: "layers T", range: [0.8, 1280], log: true };
  const sizes = { label: "gap |L(T) − L(∞)| in nats", range: [0.001, 1], log: true };
  const gaps = ui.chart({
    label: "The gap over the depth",
    x: depths,
    y: sizes,
    height: 240,
    wide: true,
  });
  const mixtures = model.get("mixtures");
  const gapsOf = memo((others, limit) =>
    DEPTHS.map((layers) => costOf(mixtures, { ...others, layers }) - limit),
  );
  return ui.show((state) => {
    const { layers, data, path, cleanest, noisiest } = state;
    const costs = numbersOf(mixtures, state);
    Object.assign(areas.options.x, AXIS_LABELS[state.axis].x);
    Object.assign(areas.options.y, AXIS_LABELS[state.axis].y);
    drawArea(areas, makePicture(mixtures, state), state);
    drawGaps(gaps, layers, gapsOf({ data, path, cleanest, noisiest }, costs.limit), costs);
    const move = (_, { x }) => ui.set({ layers: Math.round(x) });
    const dot = { x: layers, y: Math.abs(costs.gap) };
    gaps.handles([dot], move, { axis: "x", labels: ["layers T"], step: 1 });
    ui.read("cost", "cost L(T)", costs.cost, { unit: "nats" });
    ui.read("limit", "limit L(∞)", costs.limit, { unit: "nats" });
    ui.read("gap", "gap L(T) − L(∞)", costs.gap, { unit: "nats" });
    ui.read("scaled", "T times the gap", costs.scaled, { unit: "nats" });
    ui.read("rate", "that, for large T", costs.rate, { unit: "nats" });
  });
}
