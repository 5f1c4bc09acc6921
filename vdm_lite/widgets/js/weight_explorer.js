// Weight, density, factor, and the noise that a weight adds to the data (chapters 9 and 11).

import { area, dots, element, line, rule } from "./lib/chart.js";
import { memo } from "./lib/memo.js";
import { bisect, legendre, linspace, sum } from "./lib/numerics.js";
import { panel } from "./lib/panel.js";
import { makeSchedule } from "./lib/schedules.js";
import { drawnWeight, recipeSchedule, weightFall, weightOf } from "./lib/weights.js";

const EDGES = 8192; // as vdm_lite.augmentation
const POWERS = [-6, 3];

/** The shown weight {w, fall} and the density p, as functions of logsnr. fall = −dw/dlogsnr. */
function curvesOf({ recipe, schedule, bias, drawn, logsnr_max: high, logsnr_min: low }) {
  const own = recipe === "drawn" ? "linear" : recipeSchedule(recipe);
  const p = makeSchedule(schedule === "its own" ? own : schedule, high, low).density;
  if (recipe === "drawn") return { ...drawnWeight(drawn, high, low), p };
  const [raw, fall] = [weightOf(recipe, bias), weightFall(recipe, bias)];
  const { nodes, weights } = legendre(low, high);
  const total = sum(nodes.map((node, i) => weights[i] * raw(node)));
  return { w: (logsnr) => raw(logsnr) / total, fall: (logsnr) => fall(logsnr) / total, p };
}

/** Parts of p_w as shares of w(logsnr_min), and the level above which half of its data lie. */
function massesOf({ w }, low, high) {
  const total = w(low);
  let [before, most, steepest, positive, negative] = [total, total, 0, 0, 0];
  for (let i = 1; i <= EDGES; i++) {
    const here = w(low + ((high - low) * i) / EDGES);
    const falls = before - here;
    if (falls > 0) positive += falls;
    else negative += falls;
    steepest = Math.min(steepest, falls);
    most = Math.max(most, here);
    before = here;
  }
  const rises = steepest < -1e-12 * most; // less is rounding
  return { positive: positive / total, negative: negative / total, clean: before / total, rises };
}

/** The level that half of the augmented data do not reach, for a weight that never rises. */
function medianOf({ w }, low, high) {
  const half = w(low) / 2;
  return w(high) >= half ? high : bisect((logsnr) => w(logsnr) - half, low, high);
}

/** All numbers of the widget, at the level that is read and over all levels. */
export function numbersOf(state) {
  return {
    ...numbersAt(state, curvesOf(state)),
    ...numbersOverall(state, curvesOf(state)),
  };
}

function numbersAt({ logsnr, logsnr_min: low }, { w, p, fall }) {
  const level = Math.max(logsnr, low);
  return {
    level,
    w: w(level),
    p: p(level),
    factor: w(level) / p(level),
    density: fall(level) / w(low),
  };
}

function numbersOverall({ logsnr_min: low, logsnr_max: high }, curves) {
  const masses = massesOf(curves, low, high);
  return { ...masses, median: masses.rises ? null : medianOf(curves, low, high) };
}

/** What the pictures show and does not hang on the level that is read. */
function pictures(state) {
  const curves = curvesOf(state);
  const levels = shownLevels(state);
  const [w, p, fall] = [curves.w, curves.p, curves.fall].map((f) => levels.map(f));
  return { curves, levels, w, p, fall, whole: numbersOverall(state, curves) };
}

/** Levels for the curves; close to either side of a kink of a drawn weight. */
function shownLevels({ recipe, drawn, logsnr_min: low, logsnr_max: high }) {
  const even = linspace(low, high, 301);
  if (recipe !== "drawn") return even;
  const kinks = linspace(low, high, drawn.length).slice(1, -1);
  return [...even, ...kinks.flatMap((kink) => [kink - 1e-9, kink + 1e-9])].sort((a, b) => a - b);
}

export function render({ model, el }) {
  const ui = panel(model, el);
  const top = ui.chart({
    label: "Weight, density and factor",
    x: { label: "log SNR λ", range: [-5, 13.3] },
    y: { label: "p, w and w/p, as powers of ten", range: POWERS },
    height: 280,
    wide: true,
  });
  const bottom = ui.chart({
    label: "The augmentation distribution of the weight",
    x: { label: "log SNR λ", range: [-5, 13.3] },
    y: { label: "w and p_w, over w at the noisy end", range: [0, 1] },
    height: 250,
    wide: true,
  });
  const verdict = ui.place(element("p", { class: "vdm-wide vdm-verdict" }));
  const picturesOf = memo(pictures);
  return ui.show((state) => {
    const kept = picturesOf({ ...state, logsnr: null });
    const numbers = { ...numbersAt(state, kept.curves), ...kept.whole };
    drawFactors(top, ui, state, kept, numbers);
    drawAugmentation(bottom, state, kept, numbers);
    verdict.textContent = numbers.rises
      ? "The weight rises somewhere: its mixture is signed, and no noise in the data explains it."
      : "The weight never rises: the loss bounds the likelihood of data with this noise.";
    ui.read("p", "p at λ", numbers.p);
    ui.read("w", "w at λ", numbers.w);
    ui.read("factor", "factor w/p at λ", numbers.factor);
    ui.read("density", "p_w at λ", numbers.density);
    ui.read("positive", "positive mass of p_w", numbers.positive);
    ui.read("negative", "negative mass", numbers.negative);
    ui.read("clean", "point mass, clean end", numbers.clean);
    ui.read("median", "median λ of the noisy data", numbers.median);
  });
}

/** p, w and w/p on an axis of powers of ten; the weight's handles draw a weight of one's own. */
function drawFactors(chart, ui, state, { curves, levels, w, p }, { level }) {
  const { logsnr_min: low, logsnr_max: high } = state;
  const factor = w.map((value, i) => value / p[i]);
  const marks = [
    rule({ x: level }, { dash: "2 3", label: "the level λ that is read" }),
    line(levels, p.map(Math.log10), { color: "prior", width: 3, label: "p, how often" }),
    line(levels, w.map(Math.log10), { color: "data", dash: "8 4", label: "w, how much (drag it)" }),
    line(levels, factor.map(Math.log10), {
      color: "network",
      dash: "2 4",
      width: 3,
      label: "w/p, the factor",
    }),
  ];
  chart.draw(marks, { x: [low, high] });
  const places = linspace(low, high, state.drawn.length);
  const field = ui.fields.find(({ name }) => name === "drawn");
  const heights = places.map((l) =>
    Math.min(field.high, Math.max(field.low, Math.log10(curves.w(l)))),
  );
  const now = state.recipe === "drawn" ? state.drawn : heights;
  const move = (index, { y }) =>
    ui.set({ recipe: "drawn", drawn: now.map((h, i) => (i === index ? y : h)) });
  const labels = places.map((l) => `power of ten of w at log SNR ${l.toFixed(1)}`);
  chart.handles(
    places.map((x, i) => ({ x, y: now[i] })),
    move,
    { labels, color: "data", step: 0.1, reach: [field.low, field.high] },
  );
}

/** w and p_w as shares of w(logsnr_min): where w ends is the point mass. */
function drawAugmentation(
  chart,
  { logsnr_min: low, logsnr_max: high },
  { levels, w, fall },
  { clean, level },
) {
  const shares = w.map((value) => value / w[0]);
  const density = fall.map((value) => value / w[0]);
  const [least, most] = [Math.min(0, ...density), Math.max(...shares, ...density)];
  const pad = 0.06 * (most - least);
  chart.draw(
    [
      area(
        levels,
        density.map((d) => Math.max(0, d)),
        { color: "noise", opacity: 0.6, label: "p_w, positive" },
      ),
      area(
        levels,
        density.map((d) => Math.min(0, d)),
        { color: "network", hatch: true, label: "p_w, negative" },
      ),
      rule({ y: 0 }),
      rule({ x: level }, { dash: "2 3" }),
      line(levels, shares, { color: "data", dash: "8 4", label: "w" }),
      line([high, high], [0, clean], {
        color: "latent",
        width: 4,
        label: "point mass, where w ends",
      }),
      dots([high], [clean], { color: "latent", r: 5 }),
    ],
    { x: [low, high + 0.02 * (high - low)], y: [least < 0 ? least - pad : 0, most + pad] },
  );
}
