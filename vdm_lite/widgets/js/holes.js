// Chapter 2: holes, mismatch and inactive units of the best linear VAE for five clusters.
import { area, element, freshKey, line, rule } from "./lib/chart.js";
import { normals } from "./lib/counter.js";
import { normalDensity } from "./lib/gaussian.js";
import { erfc, legendre } from "./lib/numerics.js";
import { panel } from "./lib/panel.js";

const POINTS = 281; // of the grid along each axis of the latent plane, as in the library
const HALF_WIDTH = 7;
const RINGS = [0.5, 0.9, 0.99]; // shares of the prior's mass
const INACTIVE = 0.01; // nats
const ANGLES = legendre(0, Math.PI, 2);
const CORNERS = [
  [0, 0],
  [1, 0],
  [1, 1],
  [0, 1],
];
const SAMPLES = 400;
const SEED = 2;
const SHADES = [0.01, 0.04, 0.12, 0.3]; // densities where a darker blue begins

/**
 * The linear VAE of least cost and its aggregate posterior: for each of the two units its variance
 * in the data, decoder weight, noise of the posterior and cost in nats, and the mean and variance
 * of each cluster's latents (eq-ppca with the noise beta s^2, eq-unit-cost).
 */
export function linearVae({ beta, s, width, toy }) {
  const noise = beta * s * s;
  const units = [0, 1].map((i) => {
    const square =
      toy.centers.reduce((sum, center) => sum + center[i] ** 2, 0) / toy.centers.length;
    const variance = square + width * width;
    const weight = Math.sqrt(Math.max(0, variance - noise));
    const left = Math.min(1, noise / variance); // the variance of q(z_i | x)
    const gain = weight / (weight * weight + noise); // the mean is gain * x_i
    return {
      variance,
      weight,
      noise: left,
      cost: Math.log(1 / left) / 2,
      means: toy.centers.map((center) => gain * center[i]),
      spread: left + (gain * width) ** 2,
    };
  });
  return units;
}

/** The density of N(mean, spread) at each x, for each of the means: rows of numbers. */
function bells(xs, { means, spread }) {
  const height = 1 / Math.sqrt(2 * Math.PI * spread);
  const bell = (square) => (square < 160 ? height * Math.exp(-square / 2) : 0); // or numbers so small are slow
  return means.map((mean) => xs.map((x) => bell((x - mean) ** 2 / spread)));
}

/**
 * Sums over the latent plane: the mismatch KL(q || p) in nats, and the masses of prior and
 * aggregate posterior in the holes, where p > factor q.
 */
function latentSums(units, factor, points = POINTS) {
  const step = (2 * HALF_WIDTH) / (points - 1);
  const xs = Float64Array.from({ length: points }, (_, i) => -HALF_WIDTH + i * step);
  const [across, up] = units.map((unit) => bells(xs, unit));
  const prior = xs.map((x) => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI));
  let [mismatch, mass, visited] = [0, 0, 0];
  for (let i = 0; i < points; i++) {
    const column = densityColumn(across, up, i);
    for (let j = 0; j < points; j++) {
      const q = column[j];
      const p = prior[i] * prior[j];
      if (q > 1e-18) mismatch += q * Math.log(q / p);
      if (p <= factor * q) continue;
      mass += p;
      visited += q;
    }
  }
  const cell = step * step;
  return { mismatch: cell * mismatch, prior: cell * mass, visited: cell * visited };
}

/** The aggregate posterior's density at the i-th place across and every place up. */
function densityColumn(across, up, i) {
  const column = new Float64Array(up[0].length);
  up.forEach((bell, k) => {
    const share = across[k][i] / up.length;
    if (share < 1e-25) return;
    for (let j = 0; j < bell.length; j++) column[j] += share * bell[j];
  });
  return column;
}

/** Prior cost, information and mismatch, in nats (eq-split), and the masses in the holes. */
export function numbersOf(state) {
  const units = linearVae(state);
  const sums = latentSums(units, state.factor);
  const cost = units[0].cost + units[1].cost;
  const mismatch = Math.max(0, sums.mismatch);
  return { ...sums, ...badShares(state, units), cost, information: cost - mismatch, mismatch };
}

/**
 * The shares of samples farther than four widths from every center: `generated` from latents of
 * the prior, `reconstructed` from those of the aggregate posterior.
 */
function badShares({ s, width, toy }, units) {
  const spread = (variance) =>
    units.map((unit) => Math.sqrt(unit.weight ** 2 * variance(unit) + s * s));
  const wide = spread(() => 1);
  const narrow = spread((unit) => unit.spread);
  const near = toy.centers.map((_, k) => units.map(({ weight, means }) => weight * means[k]));
  let [generated, reconstructed] = [0, 0];
  for (const { x, weight, intervals } of stripsOf(toy.centers, 4 * width)) {
    const mass = (mean, std) => {
      const there = normalDensity(x, mean[0], std[0] ** 2);
      return there < 1e-12 ? 0 : there * massBetween(intervals, mean[1], std[1]);
    };
    generated += weight * mass([0, 0], wide);
    for (const mean of near) reconstructed += (weight * mass(mean, narrow)) / near.length;
  }
  return { generated: 1 - generated, reconstructed: 1 - reconstructed };
}

/**
 * Places x with weights, and the y-intervals in which the union of the circles covers them.
 *
 * The ends and crossings of circles cut the axis into pieces, on each of which the cover is smooth
 * but for square roots at its ends; angles take care of these.
 */
function stripsOf(centers, radius) {
  const cuts = centers.flatMap(([x]) => [x - radius, x + radius]);
  centers.forEach((one, i) =>
    centers.slice(0, i).forEach((other) => cuts.push(...crossings(one, other, radius))),
  );
  cuts.sort((a, b) => a - b);
  const strips = [];
  for (let i = 1; i < cuts.length; i++) {
    const [middle, half] = [(cuts[i] + cuts[i - 1]) / 2, (cuts[i] - cuts[i - 1]) / 2];
    if (half < 1e-12) continue;
    ANGLES.nodes.forEach((angle, n) => {
      const x = middle - half * Math.cos(angle);
      const weight = half * Math.sin(angle) * ANGLES.weights[n];
      strips.push({ x, weight, intervals: cover(centers, radius, x) });
    });
  }
  return strips;
}

function crossings([x, y], [u, v], radius) {
  const distance = Math.hypot(u - x, v - y);
  if (distance >= 2 * radius) return [];
  const off = (Math.sqrt(radius ** 2 - distance ** 2 / 4) * (v - y)) / distance;
  return [(x + u) / 2 - off, (x + u) / 2 + off];
}

/** The union of the intervals in which circles cover the line at x. */
function cover(centers, radius, x) {
  const found = [];
  for (const [u, v] of centers) {
    const square = radius ** 2 - (x - u) ** 2;
    if (square > 0) found.push([v - Math.sqrt(square), v + Math.sqrt(square)]);
  }
  found.sort((a, b) => a[0] - b[0]);
  const joined = [];
  for (const [low, high] of found) {
    const last = joined.at(-1);
    if (last && low <= last[1]) last[1] = Math.max(last[1], high);
    else joined.push([low, high]);
  }
  return joined;
}

/** The mass of N(mean, std^2) in the intervals. */
function massBetween(intervals, mean, std) {
  const above = (y) => erfc((y - mean) / (std * Math.SQRT2)) / 2;
  return intervals.reduce((sum, [low, high]) => sum + above(low) - above(high), 0);
}

/** Noise beta s^2 against costs in nats, from the least noise of the controls to the last unit's end. */
function noiseLevels(width, toy, points) {
  const state = { beta: 1, width, toy };
  const ends = linearVae({ ...state, s: 1 }).map((unit) => unit.variance);
  const [low, high] = [2.5e-4, Math.max(...ends)];
  const noises = Array.from({ length: points }, (_, i) => low * (high / low) ** (i / (points - 1)));
  return [...noises, ...ends].sort((a, b) => a - b);
}

/** The point of the curve at this noise: {noise, cost, information}. */
export function costsAt(noise, width, toy) {
  const units = linearVae({ beta: noise, s: 1, width, toy });
  const cost = units[0].cost + units[1].cost;
  return { noise, cost, information: cost - Math.max(0, latentSums(units, 1, 141).mismatch) };
}

// The pictures

/** Where field > level on an n x n grid, as an SVG path in hundredths of a cell. */
function contour(field, level, n) {
  let path = "";
  for (let j = 0; j < n - 1; j++) {
    let run = -1; // where a row of full cells began
    for (let i = 0; i < n; i++) {
      const at = j * n + i;
      const left = (field[at] > level) + (field[at + n] > level);
      const inside = i < n - 1 ? left + (field[at + 1] > level) + (field[at + n + 1] > level) : 0;
      if (inside === 4 && run < 0) run = i;
      if (inside < 4 && run >= 0) {
        path += `M${100 * run} ${100 * j}H${100 * i}v100H${100 * run}Z`;
        run = -1;
      }
      if (inside === 0 || inside === 4) continue;
      const values = [field[at], field[at + 1], field[at + n + 1], field[at + n]];
      path += contourPiece(values, level, i, j);
    }
  }
  return path;
}

/** The part of one cell in which the field, linear along the sides, exceeds the level. */
function contourPiece(values, level, i, j) {
  let path = "M";
  for (let k = 0; k < 4; k++) {
    const [x, y] = CORNERS[k];
    const [u, v] = CORNERS[(k + 1) % 4];
    const [here, there] = [values[k] - level, values[(k + 1) % 4] - level];
    if (here > 0) path += `${100 * (i + x)} ${100 * (j + y)} `;
    if (here > 0 === there > 0) continue;
    const share = (100 * here) / (here - there);
    path += `${Math.round(100 * (i + x) + share * (u - x))} ${Math.round(100 * (j + y) + share * (v - y))} `;
  }
  return `${path}Z`;
}

/** A plane with axes: {figure, draw(marks)}; marks are SVG in its units, y upwards. */
function makePlane({ id, label, extent, names, ticks, legend }) {
  const box = 2 * extent;
  const [px, margin] = [box / 340, box / 11];
  const grid = ticks.flatMap((tick) => [
    `<text x="${tick}" y="${extent + 16 * px}" text-anchor="middle">${String(tick).replace("-", "−")}</text>`,
    `<text x="${-extent - 6 * px}" y="${-tick + 4.5 * px}" text-anchor="end">${String(tick).replace("-", "−")}</text>`,
  ]);
  const figure = element("figure", { class: "vdm-chart" });
  figure.innerHTML = `<div class="vdm-plot"><svg role="img" aria-label="${label}"
    viewBox="${-extent - margin} ${-extent - margin} ${box + 1.3 * margin} ${box + 2.25 * margin}"
    style="width:100%;max-width:25rem;margin:auto;font-size:${14.5 * px}px">
    <clipPath id="${id}-box"><rect x="${-extent}" y="${-extent}" width="${box}" height="${box}"/></clipPath>
    <g class="vdm-here" clip-path="url(#${id}-box)"></g>
    <rect class="vdm-axis" x="${-extent}" y="${-extent}" width="${box}" height="${box}" fill="none" stroke-width="${px}"/>
    ${grid.join("")}<text x="0" y="${extent + 33 * px}" text-anchor="middle">${names[0]}</text>
    <text x="${-extent - margin + 2 * px}" y="${-extent - 7 * px}">${names[1]}</text></svg></div>
    <div class="vdm-legend" style="justify-content:center;padding:0">${legend.map(legendKey).join("")}</div>`;
  const inner = figure.querySelector(".vdm-here");
  return { figure, id, px, draw: (marks) => (inner.innerHTML = marks) };
}

function legendKey([name, mark]) {
  return `<span><svg width="22" height="12" viewBox="0 0 22 12" aria-hidden="true">${mark}</svg>${name}</span>`;
}

/** Stripes for holes; `size` in the units of the picture that uses them. */
function stripePattern(id, size) {
  return `<pattern id="${id}" width="${size}" height="${size}" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
    <rect width="${0.25 * size}" height="${size}" style="fill:var(--vdm-network)"/></pattern>`;
}

function circle(x, y, radius, style) {
  return `<circle cx="${x}" cy="${-y}" r="${radius}" style="fill:none;${style}"/>`;
}

/** The aggregate posterior in shades, the prior's rings, and stripes where the holes are. */
function drawLatents(plane, units, factor) {
  const [n, extent] = [73, 3.6];
  const step = (2 * extent) / (n - 1);
  const xs = Float64Array.from({ length: n }, (_, i) => i * step - extent);
  const down = { ...units[1], means: units[1].means.map((mean) => -mean) }; // as SVG counts
  const [across, up] = [bells(xs, units[0]), bells(xs, down)];
  const [prior] = bells(xs, { means: [0], spread: 1 });
  const [density, excess] = [new Float64Array(n * n), new Float64Array(n * n)];
  for (let i = 0; i < n; i++) {
    const column = densityColumn(across, up, i);
    for (let j = 0; j < n; j++) {
      density[j * n + i] = column[j];
      excess[j * n + i] = Math.log((prior[i] * prior[j]) / (factor * column[j] + 1e-99));
    }
  }
  const region = (field, level, style) =>
    `<path d="${contour(field, level, n)}" style="${style}"/>`;
  const shade = "fill:var(--vdm-posterior);fill-opacity:0.24";
  const shades = SHADES.map((level) => region(density, level, shade)).join("");
  const radii = RINGS.map((share) => Math.sqrt(-2 * Math.log(1 - share)));
  const style = `stroke:var(--vdm-prior);stroke-width:${2 * plane.px}`;
  const [small, rim] = [step / 100, `${plane.id}-rim`];
  plane.draw(`<defs>${stripePattern(`${plane.id}-stripes`, (7 * plane.px) / small)}
    <clipPath id="${rim}"><circle r="${radii[2]}"/></clipPath></defs><g clip-path="url(#${rim})">
    <g transform="translate(${-extent} ${-extent}) scale(${small})">${shades}
    ${region(excess, 0, `fill:url(#${plane.id}-stripes)`)}</g></g>
    ${radii.map((radius) => circle(0, 0, radius, style)).join("")}`);
}

/** Samples: latents of the prior, decoded; those from holes stand out. */
function drawSamples(plane, units, state, draws) {
  const dots = { hole: "", elsewhere: "" };
  for (const [z1, z2, n1, n2] of draws) {
    const x = units[0].weight * z1 + state.s * n1;
    const y = units[1].weight * z2 + state.s * n2;
    const q =
      units[0].means.reduce(
        (sum, mean, k) =>
          sum +
          normalDensity(z1, mean, units[0].spread) *
            normalDensity(z2, units[1].means[k], units[1].spread),
        0,
      ) / units[0].means.length;
    const hole = normalDensity(z1, 0, 1) * normalDensity(z2, 0, 1) > state.factor * q;
    const r = (hole ? 2.6 : 2) * plane.px;
    dots[hole ? "hole" : "elsewhere"] +=
      `M${(x - r).toFixed(3)} ${(-y).toFixed(3)}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`;
  }
  const rings = state.toy.centers.map(([x, y]) =>
    circle(x, y, 4 * state.width, `stroke:var(--vdm-data);stroke-width:${1.6 * plane.px}`),
  );
  plane.draw(`<path d="${dots.elsewhere}" style="fill:none;stroke:var(--vdm-noise);stroke-width:${1.2 * plane.px}"/>
    <path d="${dots.hole}" style="fill:var(--vdm-network)"/>${rings.join("")}`);
}

/** Bars of the units' costs, and whether each is active. */
function unitMeter() {
  const figure = element("figure", { class: "vdm-chart vdm-meter" });
  const draw = (units) => {
    figure.innerHTML = units
      .map(({ cost }, i) => {
        const active = cost > INACTIVE;
        return `<div style="margin:0.5rem 0"><div style="display:flex;justify-content:space-between">
        <span>unit ${i + 1}: ${active ? "active" : "<b>inactive</b>"}</span><span>${cost.toFixed(3)} nats</span></div>
        <div style="height:1rem;border:1px solid var(--vdm-latent);border-radius:3px">
        <div style="height:100%;width:${Math.min(100, 25 * cost)}%;background:var(--vdm-latent)"></div></div></div>`;
      })
      .join("");
  };
  return { figure, draw };
}

export function render({ model, el }) {
  const ui = panel(model, el);
  const id = freshKey();
  const stripes = `<defs>${stripePattern(`${id}-key`, 5)}</defs><rect width="22" height="12" fill="url(#${id}-key)"/>`;
  const ring = (color) =>
    `<circle cx="11" cy="6" r="5" style="fill:none;stroke:var(--vdm-${color});stroke-width:1.8"/>`;
  const latents = makePlane({
    id: `${id}-latents`,
    label: "The latent plane: aggregate posterior, prior and holes",
    extent: 3.6,
    names: ["unit 1", "unit 2"],
    ticks: [-2, 0, 2],
    legend: [
      [
        "aggregate posterior",
        `<rect width="22" height="12" style="fill:var(--vdm-posterior);fill-opacity:0.6"/>`,
      ],
      ["prior: 50, 90, 99 %", ring("prior")],
      ["hole", stripes],
    ],
  });
  const samples = makePlane({
    id: `${id}-samples`,
    label: `${SAMPLES} samples of the model, and circles four widths around the centers`,
    extent: 2,
    names: ["x1", "x2"],
    ticks: [-1, 0, 1],
    legend: [
      ["sample from a hole", `<circle cx="11" cy="6" r="3.5" style="fill:var(--vdm-network)"/>`],
      [
        "from elsewhere",
        `<circle cx="11" cy="6" r="3" style="fill:none;stroke:var(--vdm-noise);stroke-width:1.5"/>`,
      ],
      ["four widths", ring("data")],
    ],
  });
  ui.place(latents.figure);
  ui.place(samples.figure);
  const chart = ui.chart({
    label: "Prior cost and its two parts against beta",
    x: { label: "β", range: [0.1, 100], log: true },
    y: { label: "nats", range: [0, 6] },
    height: 240,
  });
  const meter = unitMeter();
  ui.place(meter.figure);
  const numbers = normals(SEED, 0, 4 * SAMPLES);
  const draws = Array.from({ length: SAMPLES }, (_, i) => numbers.slice(4 * i, 4 * i + 4));
  const curve = costCurve();
  return ui.show((state) => {
    const units = linearVae(state);
    const found = numbersOf(state);
    drawLatents(latents, units, state.factor);
    drawSamples(samples, units, state, draws);
    meter.draw(units);
    const draw = () => drawCosts(ui, chart, curve.points, state, units, found);
    curve.prepare(state);
    draw();
    if (curve.waiting()) ui.later(() => curve.refine() || (draw(), false));
    readOut(ui, found, units);
  });
}

function readOut(ui, found, units) {
  ui.read("cost", "prior cost", found.cost, { unit: "nats" });
  ui.read("information", "= information", found.information, { unit: "nats" });
  ui.read("mismatch", "+ mismatch", found.mismatch, { unit: "nats" });
  ui.read("active", "active units", units.filter(({ cost }) => cost > INACTIVE).length, {
    unit: "of 2",
    digits: 1,
  });
  const percent = { unit: "%", digits: 3 };
  ui.read("prior", "prior mass in holes", 100 * found.prior, percent);
  ui.read("visited", "encoder's mass there", 100 * found.visited, percent);
  ui.read("generated", "samples in between", 100 * found.generated, percent);
  ui.read("reconstructed", "same, reconstructed", 100 * found.reconstructed, percent);
}

/** Costs over the noise beta s^2 for one width: a coarse curve at once, a fine one piece by piece. */
function costCurve() {
  let [key, left] = [null, []];
  const curve = { points: [] };
  curve.prepare = ({ width, toy }) => {
    if (key?.width === width) return;
    key = { width, toy };
    curve.points = noiseLevels(width, toy, 6).map((noise) => costsAt(noise, width, toy));
    left = noiseLevels(width, toy, 40);
    curve.fine = [];
  };
  curve.waiting = () => left.length > 0;
  curve.refine = () => {
    curve.fine.push(costsAt(left.shift(), key.width, key.toy));
    if (left.length === 0) curve.points = curve.fine;
    return left.length > 0;
  };
  return curve;
}

function drawCosts(ui, chart, points, { beta, s }, units, { cost, information }) {
  const betas = [...points.map(({ noise }) => noise / s ** 2), 100];
  const costs = [...points.map((point) => point.cost), 0];
  const informations = [...points.map((point) => point.information), 0];
  const ends = units.flatMap(({ variance }, i) => {
    const end = variance / s ** 2;
    return end < 100
      ? [rule({ x: end }, { dash: "2 4", color: "latent", label: i ? "" : "a unit gives up" })]
      : [];
  });
  const marks = [
    area(betas, informations, { color: "latent", label: "information" }),
    area(betas, costs, { base: informations, color: "network", hatch: true, label: "mismatch" }),
    line(betas, costs, { color: "ink", width: 1.5, label: "prior cost" }),
    ...ends,
    rule({ x: beta }),
  ];
  const top = Math.max(
    ...points.filter(({ noise }) => noise >= 0.1 * s ** 2).map((point) => point.cost),
    cost,
    0.5,
  );
  chart.draw(marks, { y: [0, 1.05 * top] });
  const move = (_, { x }) => ui.set({ beta: Number(x.toPrecision(3)) });
  chart.handles([{ x: beta, y: cost }], move, {
    labels: ["beta"],
    color: "ink",
    step: 0.05 * beta,
    axis: "x",
  });
}
