// Chapter 3: which arrows an inference model needs, on the linear toy with z1a, z1b and z2.
import { element, line, rule } from "./lib/chart.js";
import { panel } from "./lib/panel.js";

const DIFFERENCE = 1e-4; // the step of the differences in the search
const NET = [-3, -1, -0.3, 0.3, 1, 3]; // weights of a link to start from
const SEARCHES = 3; // from the best places of the net
const UNITS = ["z1a", "z1b", "z2"];
const PAIRS = { a_b: [0, 1], a_2: [0, 2], b_2: [1, 2] };
const SEES = ["x_a", "x_b", "x_2"];
const PRESETS = {
  "Mean field": { x_a: true, x_b: true, x_2: true, a_b: "none", a_2: "none", b_2: "none" },
  "Bottom-up": { x_a: true, x_b: true, x_2: false, a_b: "none", a_2: "z1a → z2", b_2: "z1b → z2" },
  "Top-down": { x_a: true, x_b: true, x_2: true, a_b: "none", a_2: "z2 → z1a", b_2: "z2 → z1b" },
};
const FINE = Array.from({ length: 31 }, (_, i) => Math.max(32, 30 + 3 * i));
const COARSE = [32, 45, 60, 75, 90, 105, 120]; // while the reader drags

/** The entry k that turns W = [[1, 1], [1, k], [0, 1]] so that its columns meet at `angle` degrees. */
export function columnEntry(angle) {
  // cos = (1 + k) / sqrt(2 (2 + k^2)), solved for k without dividing by a number near zero.
  const c = Math.cos((angle * Math.PI) / 180);
  const root = c * Math.sqrt(2 * (3 - 4 * c * c));
  return c > 0 ? (4 * c * c - 1) / (1 + root) : (root - 1) / (1 - 2 * c * c);
}

/** Of the toy: the precision of (z_1a, z_1b, z_2) given x, and the covariance of its mean over x. */
export function makeToy({ angle, s, s_1, b }) {
  const k = columnEntry(angle);
  const [data, layer] = [s ** -2, s_1 ** -2];
  const precision = [
    [2 * data + layer, (1 + k) * data, -layer],
    [(1 + k) * data, (2 + k * k) * data + layer, -b * layer],
    [-layer, -b * layer, 1 + (1 + b * b) * layer],
  ];
  const prior = [
    [s_1 ** 2 + 1, b, 1],
    [b, s_1 ** 2 + b * b, b],
    [1, b, 1],
  ];
  const posterior = inverse(precision);
  const spread = prior.map((row, i) => row.map((value, j) => value - posterior[i][j]));
  return { precision, spread };
}

/** log det P of a symmetric matrix (3, 3). */
function logDeterminant(matrix) {
  const [pivot, last] = pivots(matrix);
  return Math.log(matrix[0][0] * pivot * last);
}

function pivots([[a, b, c], [, d, e], [, , f]]) {
  const pivot = d - (b * b) / a;
  return [pivot, f - (c * c) / a - (e - (b * c) / a) ** 2 / pivot];
}

function inverse([[a, b, c], [, d, e], [, , f]]) {
  const minors = [
    [d * f - e * e, c * e - b * f, b * e - c * d],
    [c * e - b * f, a * f - c * c, b * c - a * e],
    [b * e - c * d, b * c - a * e, a * d - b * b],
  ];
  const det = a * minors[0][0] + b * minors[0][1] + c * minors[0][2];
  return minors.map((row) => row.map((value) => value / det));
}

/** Whether the arrows, pairs [from, to] of 0, 1, 2, run in a circle. */
function hasCycle(links) {
  let left = links;
  for (let n = 0; n < 3; n++) left = left.filter(([from]) => left.some(([, to]) => to === from));
  return left.length > 0;
}

/**
 * The least gap, in nats, as a function of the weights of the links: gains and noise at their best.
 *
 * z = F (K x + n) with F = (I - L)^-1. The best noise has variance 1 / (F' P F)_ii. The best gains
 * are a least-squares fit of the posterior's mean, and exact if every unit sees x.
 */
function gapFunction({ precision, spread }, sees, links) {
  const seen = [0, 1, 2].filter((i) => sees[i]);
  const logDet = logDeterminant(precision);
  const heard = precision.map((row) => spread.map((column) => dot(row, column))); // P V
  const missed = heard[0][0] + heard[1][1] + heard[2][2];
  const mends = heard.map((row) => precision.map((column) => dot(row, column))); // P V P
  return (weights) => {
    const flow = flowColumns(links, weights);
    const power = flow.map((column) => bilinear(precision, column, column));
    const noise = Math.log(power[0] * power[1] * power[2]) - logDet;
    return (noise + misfit(precision, mends, missed, flow, seen, power)) / 2;
  };
}

function dot(a, b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

/** u' M v. */
function bilinear(matrix, u, v) {
  return u[0] * dot(matrix[0], v) + u[1] * dot(matrix[1], v) + u[2] * dot(matrix[2], v);
}

/** The columns of F = I + L + L^2: what one unit of noise in each node does to all three. */
function flowColumns(links, weights) {
  const flow = [
    [1, 0, 0],
    [0, 1, 0],
    [0, 0, 1],
  ];
  for (let n = 0; n < links.length; n++) {
    const [from, to] = links[n];
    flow[from][to] += weights[n];
    for (let m = 0; m < links.length; m++) {
      if (links[m][0] === to) flow[from][links[m][1]] += weights[n] * weights[m];
    }
  }
  return flow;
}

/** The squared error of the mean, weighted by P, that gains on the seen units cannot mend. */
function misfit(precision, mends, missed, flow, seen, power) {
  if (seen.length === 3) return 0;
  if (seen.length === 0) return missed;
  const [i, j] = seen;
  const first = bilinear(mends, flow[i], flow[i]);
  if (seen.length === 1) return missed - first / power[i];
  const cross = bilinear(precision, flow[i], flow[j]);
  const both = power[j] * first + power[i] * bilinear(mends, flow[j], flow[j]);
  return (
    missed -
    (both - 2 * cross * bilinear(mends, flow[i], flow[j])) / (power[i] * power[j] - cross ** 2)
  );
}

/** The least gap of all linear-Gaussian q with these arrows, and the weights of its links. */
export function smallestGap(toy, sees, links) {
  const cost = gapFunction(toy, sees, links);
  const ends = starts(cost, links.length).map((start) => descend(cost, start));
  const best = ends.reduce((a, b) => (b.gap < a.gap ? b : a));
  return { gap: best.gap < 1e-12 ? 0 : best.gap, weights: best.weights }; // below it, rounding errors
}

/** Where the searches begin: the gap can have several valleys. No links, and the best of a net. */
function starts(cost, n) {
  let net = [[]];
  for (let i = 0; i < n; i++) net = net.flatMap((start) => NET.map((w) => [...start, w]));
  const ranked = net.map((start) => [cost(start), start]).sort((a, b) => a[0] - b[0]);
  return [Array(n).fill(0), ...ranked.slice(0, n ? SEARCHES : 0).map((each) => each[1])];
}

/** Newton's method with damping; slope and curvature by differences. */
function descend(cost, start) {
  let [weights, gap, damping] = [start, cost(start), 1e-2];
  let turn = start.length ? derivatives(cost, weights, gap) : null;
  for (let round = 0; turn && round < 100 && damping < 1e9; round++) {
    const step = solve(turn.curvature, turn.slope, damping);
    const next = weights.map((weight, i) => weight - step[i]);
    const reached = cost(next);
    damping *= reached < gap ? 0.1 : 8;
    if (!(reached < gap)) continue;
    [weights, gap] = [next, reached];
    turn = derivatives(cost, weights, gap);
    if (Math.max(...turn.slope.map(Math.abs)) < 1e-8) break;
  }
  return { gap, weights };
}

function derivatives(cost, at, here) {
  const h = DIFFERENCE;
  const moved = (i, by, j, too) => {
    const place = [...at];
    place[i] += by;
    if (j !== undefined) place[j] += too;
    return cost(place);
  };
  const up = at.map((_, i) => moved(i, h));
  const down = at.map((_, i) => moved(i, -h));
  const slope = up.map((value, i) => (value - down[i]) / (2 * h));
  const curvature = at.map((_, i) =>
    up.map((value, j) => (i === j ? (value - 2 * here + down[i]) / h ** 2 : 0)),
  );
  for (let i = 0; i < at.length; i++) {
    for (let j = 0; j < i; j++) {
      const corners =
        moved(i, h, j, h) - moved(i, h, j, -h) - moved(i, -h, j, h) + moved(i, -h, j, -h);
      curvature[i][j] = curvature[j][i] = corners / (4 * h ** 2);
    }
  }
  return { slope, curvature };
}

/** Solve (curvature + damping * its size) step = slope, for one to three unknowns. */
function solve(curvature, slope, damping) {
  const size = Math.max(...curvature.map((row, i) => Math.abs(row[i])), 1e-9);
  const rows = curvature.map((row, i) => [
    ...row.map((v, j) => v + (i === j ? damping * size : 0)),
    slope[i],
  ]);
  rows.forEach((pivot, i) =>
    rows.forEach((row, k) => {
      const factor = k === i ? 0 : row[i] / pivot[i];
      if (factor) for (let j = i; j < row.length; j++) row[j] -= factor * pivot[j];
    }),
  );
  return rows.map((row, i) => row[slope.length] / row[i]);
}

/** The arrows that a state holds: which units see x, and pairs [from, to] of 0, 1, 2. */
export function arrowsOf(state) {
  const links = [];
  for (const [field, pair] of Object.entries(PAIRS)) {
    const from = pair.find((i) => state[field].startsWith(`${UNITS[i]} `));
    if (from !== undefined) links.push([from, pair[0] + pair[1] - from]);
  }
  return { sees: SEES.map((name) => state[name]), links };
}

/** The least gaps, in nats, of the chapter's three families, in closed form (eq-chain-gap). */
export function familyGaps({ precision }) {
  const [[a, b, c], [, d, e], [, , f]] = precision;
  const two = (p, q, r) => Math.log((p * r) / (p * r - q * q)) / 2;
  return {
    mean_field: (Math.log(a * d * f) - logDeterminant(precision)) / 2,
    bottom_up: two(a - (c * c) / f, b - (c * e) / f, d - (e * e) / f),
    top_down: two(a, b, d),
  };
}

/** The least gap of these arrows at each angle, in nats. */
export function gapCurve(state, angles) {
  const { sees, links } = arrowsOf(state);
  return angles.map((angle) => smallestGap(makeToy({ ...state, angle }), sees, links).gap);
}

// The picture

const PLACES = { z1a: [62, 150], z1b: [278, 150], z2: [170, 38], x: [170, 262] };
const SLOTS = {
  x_2: ["x", "z2"],
  x_a: ["x", "z1a"],
  x_b: ["x", "z1b"],
  a_2: ["z1a", "z2"],
  b_2: ["z1b", "z2"],
  a_b: ["z1a", "z1b"],
};
const STYLE = `.vdm-arrow { cursor: pointer; }
  .vdm .vdm-arrow:focus-visible { outline-color: transparent; }
  .vdm-arrow path { fill: none; stroke-linecap: round; }
  .vdm-ring { stroke: transparent; stroke-width: 26; pointer-events: stroke; }
  .vdm-inside { stroke: transparent; stroke-width: 21; pointer-events: none; }
  .vdm-arrow:hover .vdm-ring { stroke: var(--vdm-faint); }
  .vdm-arrow:focus-visible .vdm-ring { stroke: var(--vdm-accent); }
  .vdm-arrow:focus-visible .vdm-inside { stroke: var(--vdm-paper); }
  @media print { .vdm-hint { display: none; } }`;

/** The graph, each arrow a button: `onPress(field)`; returns {figure, update(state)}. */
function makePicture(onPress) {
  const slots = Object.keys(SLOTS).map(slotMarkup).join("");
  const nodes = Object.entries(PLACES).map(nodeMarkup).join("");
  const plot = element("div", { class: "vdm-plot" });
  plot.innerHTML = `<svg viewBox="0 0 340 300" role="group" aria-label="Arrows of the inference model"
    style="width:100%;max-width:23rem;margin:auto"><style>${STYLE}</style>${slots}${nodes}</svg>`;
  for (const arrow of plot.querySelectorAll(".vdm-arrow")) {
    const press = () => onPress(arrow.dataset.field);
    arrow.addEventListener("click", press);
    arrow.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      press();
    });
  }
  const words = element(
    "figcaption",
    { class: "vdm-hint", style: "text-align:center;color:var(--vdm-ink);font-size:0.88rem" },
    "Press an arrow, or a dotted line where one could be.",
  );
  const update = (state) =>
    plot.querySelectorAll(".vdm-arrow").forEach((arrow) => updateArrow(arrow, state));
  return { figure: element("figure", { class: "vdm-chart" }, plot, words), update };
}

function slotMarkup(field) {
  const [from, to] = SLOTS[field].map((name) => PLACES[name]);
  const along = pointAlong(from, to, 30);
  const path = `M${along}L${pointAlong(to, from, 30)}`;
  return `<g class="vdm-arrow" data-field="${field}" role="button" tabindex="0">
    <path class="vdm-ring" d="${path}"/><path class="vdm-inside" d="${path}"/><path class="vdm-way"/></g>`;
}

function nodeMarkup([name, [x, y]]) {
  const fill = name === "x" ? "var(--vdm-faint)" : "var(--vdm-paper)";
  const below = `<tspan dy="5" font-size="11" font-style="normal">${name.slice(1)}</tspan>`;
  return `<circle cx="${x}" cy="${y}" r="22" style="fill:${fill};stroke:var(--vdm-ink);stroke-width:1.5"/>
    <text x="${x}" y="${y + 5}" text-anchor="middle" font-size="17" font-style="italic">${name[0]}${below}</text>`;
}

/** The point `gap` pixels from `from` on the way to `to`. */
function pointAlong(from, to, gap) {
  const length = Math.hypot(to[0] - from[0], to[1] - from[1]);
  return from.map((value, i) => value + ((to[i] - value) * gap) / length);
}

function updateArrow(arrow, state) {
  const { field } = arrow.dataset;
  const [one, other] = SLOTS[field];
  const way = state[field] === true ? `${one} → ${other}` : state[field] || "none";
  const [from, to] = way === "none" ? [one, other] : way.split(" → ");
  const ends = [PLACES[from], PLACES[to]];
  const drawn = arrow.querySelector(".vdm-way");
  drawn.setAttribute("d", way === "none" ? shaft(...ends) : shaft(...ends) + head(...ends));
  const look =
    way === "none"
      ? "stroke:var(--vdm-muted);stroke-width:1.5;stroke-dasharray:0.1 7"
      : "stroke:var(--vdm-posterior);stroke-width:2.5;stroke-dasharray:7 6";
  drawn.setAttribute("style", `${look};pointer-events:none`);
  const said = one === "x" ? `Arrow from x to ${other}` : `Arrow between ${one} and ${other}`;
  arrow.setAttribute("aria-label", `${said}: ${way === "none" ? "none" : `from ${from} to ${to}`}`);
}

function shaft(from, to) {
  return `M${pointAlong(from, to, 25)}L${pointAlong(to, from, 25)}`;
}

/** The two strokes of an arrow's head; short ones, which a dash does not break. */
function head(from, to) {
  const tip = pointAlong(to, from, 25);
  const turn = Math.atan2(from[1] - to[1], from[0] - to[0]);
  return [-0.45, 0.45]
    .map((by) => {
      const [dx, dy] = [Math.cos(turn + by), Math.sin(turn + by)].map((value) => 6.5 * value);
      return `M${tip}L${[tip[0] + dx, tip[1] + dy]}M${tip}m${dx} ${dy}l${dx} ${dy}`;
    })
    .join("");
}

export function render({ model, el }) {
  const ui = panel(model, el);
  const { refuse, press } = guard(ui);
  const picture = makePicture(press);
  ui.place(picture.figure);
  const chart = ui.chart({
    label: "Least gap against the angle of the columns of W",
    x: { label: "angle in degrees", range: [32, 120] },
    y: { label: "least gap in nats", range: [0, 1] },
    height: 280,
  });
  for (const [name, arrows] of Object.entries(PRESETS)) ui.button(name, () => ui.set(arrows));
  let curve = {};
  return ui.show((state) => {
    if (refuse(state)) return;
    picture.update(state);
    const { sees, links } = arrowsOf(state);
    const toy = makeToy(state);
    const { gap } = smallestGap(toy, sees, links);
    const family = familyGaps(toy);
    const draw = () => drawGaps(ui, chart, curve, state.angle, gap);
    const key = JSON.stringify({ ...state, angle: 0 });
    if (key !== curve.key) curve = { key, ...curvesAt(state, COARSE) };
    draw();
    const refined = (fine) => {
      curve = { key, ...fine };
      draw();
    };
    if (curve.angles === COARSE) ui.later(refine(state, refined));
    ui.read("gap", "your arrows", gap, { unit: "nats" });
    ui.read("bottom_up", "bottom-up", family.bottom_up, { unit: "nats" });
    ui.read("top_down", "top-down", family.top_down, { unit: "nats" });
    ui.read("mean_field", "mean field", family.mean_field, { unit: "nats" });
    ui.read("entry", "entry k of W", columnEntry(state.angle));
  });
}

/** Keeps circles out, and says so below the buttons until the next change. */
function guard(ui) {
  let [before, said] = [null, ""];
  const tell = (way, instead) => {
    ui.say(`${way} would close a circle, in which no unit could be drawn first. ${instead}`);
    said = "new";
  };
  /** Turns an arrow that the reader closed a circle with; true where there is one to refuse. */
  const refuse = (state) => {
    if (!hasCycle(arrowsOf(state).links)) {
      if (said === "old") ui.say("");
      [before, said] = [state, said === "new" ? "old" : ""];
      return false;
    }
    if (before && !ui.moved) {
      // Python may be setting arrows one by one: what it means is not the page's to guess.
      ui.say("These arrows run in a circle, in which no unit could be drawn first.");
      said = "new";
      return true;
    }
    const names = Object.keys(PAIRS);
    const culprit = names.find((name) => before && state[name] !== before[name]) ?? names[0];
    const turned = state[culprit].split(" → ").reverse().join(" → ");
    tell(state[culprit], `It became ${turned}.`);
    ui.set({ [culprit]: turned });
    return true;
  };
  /** A press on an arrow: on and off; or none, one way, the other way, none, without circles. */
  const press = (field) => {
    const state = ui.state();
    if (SEES.includes(field)) return ui.set({ [field]: !state[field] });
    const [one, other] = SLOTS[field];
    const ways = ["none", `${one} → ${other}`, `${other} → ${one}`];
    let next = (ways.indexOf(state[field]) + 1) % 3;
    if (hasCycle(arrowsOf({ ...state, [field]: ways[next] }).links)) {
      tell(ways[next], "It was left out.");
      next = (next + 1) % 3;
    }
    ui.set({ [field]: ways[next] });
  };
  return { refuse, press };
}

function curvesAt(state, angles) {
  const families = angles.map((angle) => familyGaps(makeToy({ ...state, angle })));
  return { angles, families, gaps: gapCurve(state, angles) };
}

/** A step for `later`: one angle a time, then `done(curves)`. */
function refine(state, done) {
  const gaps = [];
  return () => {
    gaps.push(...gapCurve(state, [FINE[gaps.length]]));
    if (gaps.length < FINE.length) return true;
    done({ ...curvesAt({ ...state, ...PRESETS["Mean field"] }, FINE), gaps });
    return false;
  };
}

function drawGaps(ui, chart, { angles, gaps, families }, angle, gap) {
  const family = (name, label, style) =>
    line(
      angles,
      families.map((each) => each[name]),
      { ...style, label },
    );
  const marks = [
    line(angles, gaps, { color: "posterior", width: 4, label: "your arrows" }),
    family("bottom_up", "bottom-up", { color: "noise", dash: "8 4" }),
    family("top_down", "top-down", { color: "network", dash: "8 3 2 3" }),
    family("mean_field", "mean field", { color: "latent", dash: "2 4" }),
    rule({ x: angle }),
  ];
  const top = Math.max(0.05, gap, ...gaps, ...families.map(({ mean_field }) => mean_field));
  chart.draw(marks, { y: [0, 1.08 * top] });
  const turn = (_, { x }) => ui.set({ angle: Math.round(x) });
  chart.handles([{ x: angle, y: gap }], turn, {
    labels: ["angle of the columns"],
    color: "posterior",
    step: 1,
    axis: "x",
  });
}
