// Chapter 1: the two costs of q and its gap, on the linear VAE with one latent.
import { area, bars, line, text } from "./lib/chart.js";
import { normalDensity, normalKl } from "./lib/gaussian.js";
import { linspace } from "./lib/numerics.js";
import { panel } from "./lib/panel.js";

const LATENTS = linspace(-3, 4, 281);
const HEIGHTS = [1, 2, 4.4]; // tops of the axes, in steps: an axis that follows hides the change
const LENGTHS = [4, 8, 16, 40];

/** The exact p(z | x) of x = weight z + std n with z, n ~ N(0, 1) (eq-linear-posterior). */
export function exactPosterior({ weight, std, x }) {
  const variance = 1 / (1 + (weight / std) ** 2);
  return { mean: (variance * weight * x) / std ** 2, variance };
}

/** What q = N(mean, variance) costs, in nats (eq-vae-elbo, eq-evidence-gap). */
export function costsOf(toy, mean, variance) {
  const { weight, std, x } = toy;
  const square = (x - weight * mean) ** 2 + weight ** 2 * variance;
  const reconstruction = (Math.log(2 * Math.PI * std ** 2) + square / std ** 2) / 2;
  const prior = normalKl(mean, variance, 0, 1);
  const spread = weight ** 2 + std ** 2; // the variance of x
  const evidence = (Math.log(2 * Math.PI * spread) + x ** 2 / spread) / 2; // -log p(x)
  const exact = exactPosterior(toy);
  const gap = normalKl(mean, variance, exact.mean, exact.variance);
  return { reconstruction, prior, bound: reconstruction + prior, evidence, gap };
}

export function render({ model, el }) {
  const ui = panel(model, el);
  const bells = ui.chart({
    label: "Densities of the latent z",
    x: { label: "latent z", range: [-3, 4] },
    y: { label: "density", range: [0, 1] },
    height: 250,
    wide: true,
  });
  const lengths = ui.chart({
    label: "Costs as lengths of bars",
    x: { label: "nats", range: [0, 4] },
    y: {
      label: "costs of x",
      range: [0, 2],
      ticks: [0.5, 1.5],
      names: { 0.5: "truth", 1.5: "bound" },
    },
    height: 160,
    wide: true,
  });
  return ui.show(({ mean, variance, truth, toy }) => {
    const costs = costsOf(toy, mean, variance);
    drawBells(bells, toy, mean, variance, truth);
    const longest = LENGTHS.find((top) => 0.84 * top > costs.bound);
    lengths.draw(costBars(costs, truth, longest), { x: [0, longest] });
    const side = mean > 2.4 ? -1 : 1; // of the mean, where the second dot stays on the chart
    const places = [mean, mean + side * Math.sqrt(variance)];
    const knobs = places.map((z) => ({ x: z, y: normalDensity(z, mean, variance) }));
    const width = (x) => Math.max(0, side * (x - mean));
    const move = (index, { x }) => ui.set(index === 0 ? { mean: x } : { variance: width(x) ** 2 });
    const labels = ["mean of q", "q, one standard deviation from its mean"];
    bells.handles(knobs, move, { labels, color: "posterior", step: 0.01, axis: "x" });
    const unit = { unit: "nats" };
    ui.read("reconstruction", "reconstruction", costs.reconstruction, unit);
    ui.read("prior", "KL", costs.prior, unit);
    ui.read("bound", "−ELBO", costs.bound, unit);
    ui.read("evidence", "−log p(x)", truth ? costs.evidence : null, unit);
    ui.read("gap", "gap", truth ? costs.gap : null, unit);
  });
}

function drawBells(chart, toy, mean, variance, truth) {
  const exact = exactPosterior(toy);
  const bell = (m, v) => LATENTS.map((z) => normalDensity(z, m, v));
  // Around its mean, so that the peak of a narrow q does not fall between two points.
  const [near, width] = [linspace(-6, 6, 121), Math.sqrt(variance)];
  const places = near.map((u) => mean + width * u);
  const heights = places.map((z) => normalDensity(z, mean, variance));
  const curves = [
    area(LATENTS, bell(0, 1), { color: "prior", opacity: 0.15 }),
    line(LATENTS, bell(0, 1), { color: "prior", label: "prior" }),
    area(places, heights, { color: "posterior", opacity: 0.15 }),
  ];
  if (truth) {
    const posterior = bell(exact.mean, exact.variance);
    curves.push(area(LATENTS, posterior, { color: "latent", opacity: 0.15 }));
    curves.push(line(LATENTS, posterior, { color: "latent", label: "exact posterior" }));
  }
  curves.push(line(places, heights, { color: "posterior", dash: "7 4", width: 2.5, label: "q" }));
  const peak = normalDensity(mean, mean, variance);
  chart.draw(curves, { y: [0, HEIGHTS.find((top) => 0.95 * top > peak)] });
}

function costBars({ reconstruction, prior, bound, evidence, gap }, truth, longest) {
  const beside = bound + 0.01 * longest;
  const bar = (x0, length, y0) => [{ x0, x1: x0 + length, y0, y1: y0 + 0.7 }];
  const above = [
    bars(bar(0, reconstruction, 1.15), {
      color: "likelihood",
      opacity: 0.75,
      label: "reconstruction",
    }),
    bars(bar(reconstruction, prior, 1.15), { color: "prior", hatch: true, label: "KL" }),
    text(beside, 1.56, bound.toFixed(2), { anchor: "start" }),
  ];
  if (!truth) return above;
  return [
    ...above,
    bars(bar(0, evidence, 0.15), { color: "data", opacity: 0.6, label: "−log p(x)" }),
    bars(bar(evidence, gap, 0.15), { color: "posterior", hatch: true, label: "gap" }),
    text(beside, 0.56, `gap ${gap.toFixed(2)}`, { anchor: "start" }),
  ];
}
