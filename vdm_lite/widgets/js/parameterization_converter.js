// Six outputs of one denoiser: any of them gives the others (chapter 8).

import { bars, dots, element, format, line, rule, text } from "./lib/chart.js";
import { alpha, sigma } from "./lib/gaussian.js";
import { memo } from "./lib/memo.js";
import { denoise, energy } from "./lib/mixtures.js";
import { linspace, sigmoid } from "./lib/numerics.js";
import { panel, readNumber } from "./lib/panel.js";

export const OUTPUTS = ["image", "noise", "score", "velocity", "flow", "edm"];

/** The row (a, b) of an output: y = a x + b eps. `std` is the deviation that EDM's F assumes. */
function outputRow(output, logsnr, std) {
  const out = std * Math.sqrt(sigmoid(-logsnr - 2 * Math.log(std)));
  const skip = sigmoid(logsnr + 2 * Math.log(std));
  return {
    image: [1, 0],
    noise: [0, 1],
    score: [0, -1 / sigma(logsnr)],
    velocity: [-sigma(logsnr), alpha(logsnr)],
    flow: [-1, 1],
    edm: [out / std ** 2, (-skip * Math.exp(-logsnr / 2)) / out],
  }[output];
}

/** The determinant alpha b − sigma a. */
function outputDeterminant(output, logsnr, std) {
  const [a, b] = outputRow(output, logsnr, std);
  return alpha(logsnr) * b - sigma(logsnr) * a;
}

/** The deviation of an output's target for data of deviation `std`. */
function targetDeviation(output, logsnr, std) {
  const [a, b] = outputRow(output, logsnr, std);
  return Math.hypot(a * std, b);
}

/** All outputs {image, noise, …} that follow from one `answer` at the latent z. */
export function convert(output, answer, z, logsnr, std) {
  const [a, b] = outputRow(output, logsnr, std);
  const scale = outputDeterminant(output, logsnr, std);
  const x = (b / scale) * z - (sigma(logsnr) / scale) * answer;
  const eps = (alpha(logsnr) / scale) * answer - (a / scale) * z;
  const answers = OUTPUTS.map((name) => {
    const [forImage, forNoise] = outputRow(name, logsnr, std);
    return [name, forImage * x + forNoise * eps];
  });
  return { ...Object.fromEntries(answers), [output]: answer };
}

/** The exact outputs for a mixture, and its energy −log q(z). */
function exactAnswers(toy, z, logsnr, std) {
  const answers = convert("image", denoise(toy, z, logsnr), z, logsnr, std);
  return { ...answers, energy: energy(toy, z, logsnr) };
}

/** By how much an output's relative error is amplified, in "image" or in "noise". */
export function amplification(output, unit, logsnr, std) {
  const gain = unit === "image" ? sigma(logsnr) : alpha(logsnr);
  const scale = Math.abs(outputDeterminant(output, logsnr, std));
  return (gain / scale) * targetDeviation(output, logsnr, std);
}

/** All numbers of the widget: exact answers, the network's, deviations, amplifications, errors. */
export function converted({ toy, latent, logsnr, std, output, error, unit }) {
  const exact = exactAnswers(toy, latent, logsnr, std);
  const over = (make) => Object.fromEntries(OUTPUTS.map((name) => [name, make(name)]));
  const deviations = over((name) => targetDeviation(name, logsnr, std));
  const answer = exact[output] + error * deviations[output];
  const said = error === 0 ? exact : convert(output, answer, latent, logsnr, std);
  return {
    exact,
    deviations,
    said,
    factors: over((name) => amplification(name, unit, logsnr, std)),
    off: { image: said.image - exact.image, noise: said.noise - exact.noise },
  };
}

const ROWS = { range: [5.5, -0.5], ticks: [0, 1, 2, 3, 4, 5], names: OUTPUTS };
const REACH = 4;
const LEVELS = linspace(-8, 10, 361);
const BANDS = [
  { low: 10, color: "level0", hatch: true, label: "10 times as large or more" },
  { low: 2, color: "level2", hatch: true, label: "2 to 10 times" },
  { low: 0.5, color: "level3", opacity: 0.4, label: "½ to 2 times" },
  { low: 0, color: "level4", opacity: 0.15, label: "less than ½" },
];

/** The map: for each band of amplification, its rectangles over log SNR, a row an output. */
export function amplificationMap(unit, std) {
  const found = BANDS.map(() => []);
  const step = LEVELS[1] - LEVELS[0];
  OUTPUTS.forEach((output, row) => {
    let open = {};
    for (const logsnr of LEVELS) {
      const size = amplification(output, unit, logsnr, std);
      const band = BANDS.findIndex(({ low }) => size >= low * (1 - 1e-9));
      if (band !== open.band) {
        open = { band, x0: Math.max(-8, logsnr - step / 2), y0: row - 0.36, y1: row + 0.36 };
        found[band].push(open);
      }
      open.x1 = Math.min(10, logsnr + step / 2);
    }
  });
  return found;
}

export function render({ model, el }) {
  const ui = panel(model, el);
  const answers = ui.chart({
    label: "Answers of the network and exact answers",
    x: { label: "answer, in deviations of its target", range: [-REACH, REACH] },
    y: { ...ROWS, label: "what is said of" },
    height: 250,
    wide: true,
  });
  const table = answerTable(ui);
  const map = ui.chart({
    label: "Amplification of a relative error",
    x: { label: "log SNR λ", range: [-8, 10] },
    y: { ...ROWS, label: "a relative error becomes" },
    height: 250,
  });
  const hill = ui.chart({
    label: "Energy of the two bumps",
    x: { label: "latent z", range: [-3, 3] },
    y: { label: "energy, nats", range: [-1, 8] },
    height: 250,
  });
  const bandsOf = memo(amplificationMap);
  return ui.show((state) => {
    const numbers = converted(state);
    drawAnswers(answers, ui, state, numbers);
    table.fill(state, numbers);
    const bands = bandsOf(state.unit, state.std).map((found, i) => bars(found, BANDS[i]));
    map.draw([...bands, rule({ x: state.logsnr }, { color: "ink", label: "λ" })]);
    drawHill(hill, ui, state, numbers);
    ui.read("energy", "energy at z", numbers.exact.energy, { unit: "nats" });
    ui.read("off_image", "error in the image", numbers.off.image);
    ui.read("off_noise", "error in the noise", numbers.off.noise);
  });
}

/** A row for each output: the exact answer (hollow), and the network's, which the reader drags. */
function drawAnswers(chart, ui, state, { exact, said, deviations }) {
  const rows = OUTPUTS.map((_, row) => row);
  const places = OUTPUTS.map((name) => [
    exact[name] / deviations[name],
    said[name] / deviations[name],
  ]);
  const hold = (x) => Math.min(REACH, Math.max(-REACH, x));
  const marks = places.map((pair, row) =>
    line(pair.map(hold), [row, row], { color: "network", width: 3 }),
  );
  for (const [row, [, x]] of places.entries()) {
    if (Math.abs(x) <= REACH) continue;
    const beyond = x > 0 ? `${format(x, 3)} →` : `← ${format(x, 3)}`;
    marks.push(
      text(0.93 * hold(x), row - 0.22, beyond, {
        anchor: x > 0 ? "end" : "start",
        color: "network",
      }),
    );
  }
  const shown = places.map(([, x]) => hold(x));
  marks.push(dots(shown, rows, { color: "network", r: 6, label: "the network (drag it)" }));
  marks.push(
    dots(
      places.map(([x]) => hold(x)),
      rows,
      { color: "ink", r: 9, hollow: true, label: "exact" },
    ),
  );
  chart.draw(marks);
  const labels = OUTPUTS.map((name) => `the network’s ${name}`);
  const move = (row, { x }) => ui.set({ output: OUTPUTS[row], error: x - places[row][0] });
  const points = shown.map((x, row) => ({ x, y: row }));
  chart.handles(points, move, { axis: "x", step: 0.05, color: "network", labels });
}

/** The energy over z, the place of the latent, and the slope that the network says. */
function drawHill(chart, ui, { toy, logsnr, latent }, { exact, said }) {
  const zs = linspace(-3, 3, 241);
  const energies = zs.map((z) => energy(toy, z, logsnr));
  const slope = (score) => zs.map((z) => exact.energy - score * (z - latent));
  chart.draw(
    [
      line(zs, energies, { color: "latent", width: 3, label: "energy" }),
      line(zs, slope(exact.score), { color: "ink", dash: "2 4", label: "exact slope, −score" }),
      line(zs, slope(said.score), { color: "network", dash: "7 4", label: "slope by the network" }),
    ],
    { y: [-1, Math.max(8, 1.15 * exact.energy)] },
  );
  const move = (_, { x }) => ui.set({ latent: x });
  const options = { axis: "x", step: 0.05, color: "latent", labels: ["the latent z"] };
  chart.handles([{ x: latent, y: exact.energy }], move, options);
}

/** A table with a number field for each output: what is typed there, the network says. */
function answerTable(ui) {
  const heads = ["output", "network", "exact", ""];
  const columns = heads.map((name) => element("th", { scope: "col" }, name));
  const body = element("tbody");
  const label = "Type any answer of the network";
  const parts = [
    element("caption", {}, label),
    element("thead", {}, element("tr", {}, ...columns)),
    body,
  ];
  const box = element("div", {
    class: "vdm-table",
    tabindex: 0,
    role: "group",
    "aria-label": label,
  });
  const problem = element("p", { class: "vdm-problem", role: "alert" });
  box.append(element("table", {}, ...parts), problem);
  ui.place(box);
  const rows = OUTPUTS.map((name) => answerRow(name, ui, problem));
  body.append(...rows.map(({ row }) => row));
  const fill = (state, numbers) => {
    problem.textContent = "";
    columns[3].textContent = `× in ${state.unit}`;
    for (const each of rows) each.fill(state, numbers);
  };
  return { fill };
}

function answerRow(name, ui, problem) {
  const input = element("input", { type: "text", inputmode: "decimal", autocomplete: "off" });
  input.setAttribute("aria-label", `${name}, typed`);
  const said = element("data", { "data-readout": name, style: "grid-column: 2" }, input);
  const exact = element("data", { "data-readout": `exact_${name}` });
  const factor = element("data", { "data-readout": `${name}_factor` });
  const head = element("th", { scope: "row" }, name);
  const cells = [element("div", { class: "vdm-field" }, said), exact, factor];
  const row = element("tr", {}, head, ...cells.map((cell) => element("td", {}, cell)));
  let current;
  const write = () => {
    const rounded = Number(current.said[name].toPrecision(4));
    input.value = String(Math.abs(rounded) < 1e-12 ? 0 : rounded).replace("-", "−");
  };
  input.addEventListener("change", () => {
    const [best, deviation] = [current.exact[name], current.deviations[name]];
    const field = ui.fields.find(({ name: each }) => each === "error");
    const [low, high] = [field.low, field.high].map((error) =>
      Number((best + error * deviation).toPrecision(4)),
    );
    const read = readNumber(input.value, { kind: "number", low, high });
    problem.textContent = read.problem ? `${name}: ${read.problem}.` : "";
    if (read.problem) write();
    else ui.set({ output: name, error: (read.value - best) / deviation });
  });
  const fill = ({ output }, numbers) => {
    const before = current?.said[name];
    current = numbers;
    head.textContent = output === name ? `${name} ◂` : name;
    said.value = String(numbers.said[name]);
    if (numbers.said[name] !== before) write(); // else what is being typed here stays
    const shown = [
      [exact, numbers.exact[name]],
      [factor, numbers.factors[name]],
    ];
    for (const [cell, value] of shown) {
      cell.value = String(value);
      cell.textContent = format(value);
    }
  };
  return { row, fill };
}
