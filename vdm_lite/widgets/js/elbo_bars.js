// Chapter 5: the three costs of the 8-level toy, for any depth and any end points.
import { area, bars, format, line, rule, text } from "./lib/chart.js";
import { diffusionCost, diffusionLimit, errorMoments, overLevels } from "./lib/costs.js";
import { memo } from "./lib/memo.js";
import { linspace, normalNodes, sigmoid, softplus, sum } from "./lib/numerics.js";
import { panel } from "./lib/panel.js";

const TERMS = [
  { key: "prior", color: "prior", opacity: 0.8 },
  { key: "reconstruction", color: "likelihood", hatch: true },
  { key: "diffusion", color: "latent", opacity: 0.6 },
];
const NODES = normalNodes();
const PROFILES = [
  { field: "layers", label: "layers T", log: true, count: 31 },
  { field: "cleanest", label: "cleanest level λ₀ (log SNR)", count: 24 },
  { field: "noisiest", label: "noisiest level λ₁ (log SNR)", count: 25 },
];

/** E KL(q(z_1 | x) || N(0, 1)) of levels `means` with probabilities `weights` (eq-prior-term). */
function levelPrior({ weights, means }, logsnr) {
  const signal = sigmoid(logsnr);
  const square = sum(means.map((mean, k) => weights[k] * mean ** 2));
  return (signal * square + softplus(logsnr) - signal) / 2;
}

/**
 * E[-log p(x | z_0)] of a level under Bayes' rule with an even prior over all levels
 * (eq-reconstruction-discrete), by quadrature over the noise.
 */
function levelReconstruction({ weights, means }, logsnr) {
  const step = (means[1] - means[0]) * Math.exp(logsnr / 2);
  const surprise = (k, ratios, at) => {
    let all = 0;
    for (let l = 0; l < weights.length; l++) all += ratios[at + l - k];
    return Math.log(all);
  };
  return overLevels(weights, step, NODES, surprise);
}

/** All costs in nats, for T layers and (`limit`, `deepest`) for infinitely many. */
export function levelCosts(toy, layers, cleanest, noisiest) {
  const costs = layerCosts(toy, { layers, cleanest, noisiest }, (logsnr) =>
    levelReconstruction(toy, logsnr),
  );
  const limit = diffusionLimit(errorMoments(toy).square.value, noisiest, cleanest);
  const total = costs.prior + costs.reconstruction + costs.diffusion;
  return {
    ...costs,
    total,
    excess: total - toy.entropy,
    limit,
    deepest: total - costs.diffusion + limit,
  };
}

function layerCosts(toy, { layers, cleanest, noisiest }, reconstruct) {
  const levels = linspace(cleanest, noisiest, layers + 1);
  return {
    prior: levelPrior(toy, noisiest),
    reconstruction: reconstruct(cleanest),
    diffusion: diffusionCost(errorMoments(toy).square.value, levels),
  };
}

/** Values of one setting to compute the costs at: even, or on a log scale whole numbers. */
export function profilePlaces({ low, high, log }, count) {
  if (!log) return linspace(low, high, count);
  const powers = linspace(Math.log(low), Math.log(high), count);
  return [...new Set(powers.map((power) => Math.round(Math.exp(power))))];
}

/** The bar of one depth: three rectangles end to end, the row's top at `y`. */
function costBar(costs, y) {
  let end = 0;
  return TERMS.map(({ key }) => {
    const start = end;
    end += costs[key];
    return { x0: start, x1: end, y0: y - 0.85, y1: y - 0.35 };
  });
}

function drawBars(chart, layers, costs, entropy) {
  const deep = { ...costs, diffusion: costs.limit };
  const rows = [costBar(costs, 2), costBar(deep, 1)];
  const name = `${layers} ${layers === 1 ? "layer" : "layers"}`;
  const marks = TERMS.map(({ key, ...style }, i) =>
    bars(
      rows.map((row) => row[i]),
      { ...style, label: key },
    ),
  );
  chart.draw(
    [
      ...marks,
      line([entropy, entropy, NaN, entropy, entropy], [0.05, 0.65, NaN, 1.05, 1.65], {
        color: "data",
        dash: "2 3",
        label: "entropy H(X)",
      }),
      text(0, 1.74, `${name}: ${format(costs.total)} nats`, { anchor: "start" }),
      text(0, 0.74, `infinitely many: ${format(costs.deepest)} nats`, { anchor: "start" }),
    ],
    { x: [0, 1.12 * Math.max(2, costs.total)], y: [0, 2] },
  );
}

/** The costs stacked, over the values of one setting while the others stay. */
function drawProfile(chart, places, all, now, entropy) {
  let floor = places.map(() => 0);
  const marks = TERMS.map(({ key, ...style }) => {
    const base = floor;
    floor = base.map((start, i) => start + all[i][key]);
    return area(places, floor, { ...style, base });
  });
  const top = now.total < 3.5 ? 4 : 1.25 * now.total;
  chart.draw(
    [
      ...marks,
      line(places, floor, { color: "ink", width: 1.5 }),
      rule({ y: entropy }, { color: "data", dash: "2 3" }),
      rule({ x: now.at }, { color: "ink", dash: "4 4", width: 1 }),
    ],
    { y: [0, top] },
  );
}

export function render({ model, el }) {
  const ui = panel(model, el);
  const toy = model.get("toy");
  const reconstruct = memo((logsnr) => levelReconstruction(toy, logsnr));
  const nats = { label: "nats", range: [0, 4] };
  const blank = { label: "", range: [0, 2], ticks: [] };
  const x = { label: "nats", range: [0, 2] };
  const two = ui.chart({ label: "The costs as bars", x, y: blank, height: 230 });
  const profiles = PROFILES.map(({ field, label, log, count }) => {
    const control = model.get("_fields").find(({ name }) => name === field);
    const values = { label, range: [control.low, control.high], log };
    const chart = ui.chart({ label: `The costs over ${label}`, x: values, y: nats, height: 230 });
    const places = profilePlaces(control, count);
    // While its own setting moves, a profile stays as it is.
    const profileCosts = memo((others) =>
      places.map((place) => layerCosts(toy, { ...others, [field]: place }, reconstruct)),
    );
    return { field, label, chart, places, profileCosts };
  });
  return ui.show((state) => {
    const { layers, cleanest, noisiest } = state;
    const costs = levelCosts(toy, layers, cleanest, noisiest);
    drawBars(two, layers, costs, toy.entropy);
    for (const { field, label, chart, places, profileCosts } of profiles) {
      const now = { at: state[field], total: costs.total };
      const all = profileCosts({ layers, cleanest, noisiest, [field]: null });
      drawProfile(chart, places, all, now, toy.entropy);
      const step = field === "layers" ? 1 : 0.1;
      const move = (_, { x }) =>
        ui.set({ [field]: Number((Math.round(x / step) * step).toFixed(1)) });
      chart.handles([{ x: now.at, y: costs.total }], move, { axis: "x", labels: [label], step });
    }
    for (const { key } of TERMS) ui.read(key, key, costs[key], { unit: "nats" });
    ui.read("total", "sum, −ELBO", costs.total, { unit: "nats" });
    ui.read("excess", "sum above entropy", costs.excess, { unit: "nats" });
    ui.read("deepest", "sum for T → ∞", costs.deepest, { unit: "nats" });
  });
}
