// Chapter 12: the trained denoiser, sampled on the page or in the kernel, step by step.

import { bars, element, freshKey, rule } from "./lib/chart.js";
import { normals } from "./lib/counter.js";
import { alpha, sigma } from "./lib/gaussian.js";
import { sum } from "./lib/numerics.js";
import { panel } from "./lib/panel.js";
import {
  FORMS,
  clipImage,
  encodeLevels,
  formOf,
  priorBits,
  reconstructionBits,
  stepBits,
  stepBy,
  stepRule,
} from "./lib/sampling.js";
import { makeSchedule } from "./lib/schedules.js";

const SIDE = 28;
const SIZE = SIDE ** 2;
const BLANK = new Float32Array(SIZE);
const DRAW_EVERY = 50; // milliseconds: to draw costs as much as a step
const ELSEWHERE = "In a notebook, vdm_lite.samplers.sample draws pictures.";

/** The start of a run: z_1 is noise, or the noisiest latent of a known picture. */
function startRun({ picture, pictures, steps, seed, ends }) {
  const { logsnr } = makeSchedule("linear", ...ends);
  const levels = Array.from({ length: steps + 1 }, (_, k) => logsnr(1 - k / steps));
  const known = pictures[picture] ?? null;
  const x = known && encodeLevels(known);
  const noise = normals(seed, 0, SIZE);
  const [a, s] = [alpha(levels[0]), sigma(levels[0])];
  const z = x ? noise.map((value, i) => a * x[i] + s * value) : noise;
  return { levels, known, x, latents: [z], guesses: [], apart: 0 };
}

/** How many steps a run has left. */
function stepsLeft({ levels, latents }) {
  return levels.length - latents.length;
}

/** A run with one more step, `eps` being the noise that the network sees in its last latent. */
function advanceRun(run, eps, { sampler, form, clip, seed }) {
  const { levels, x, latents, guesses } = run;
  const [done, z] = [guesses.length, latents.at(-1)];
  const [from, to] = levels.slice(done);
  const noise = sampler === "DDIM" ? null : normals(seed, done + 1, SIZE);
  const rules = FORMS.map((each) => stepRule(sampler, each, to, from));
  const outputs = FORMS.map((each) => formOf(each, z, eps, from));
  const raw = outputs[0];
  if (clip) outputs[0] = clipImage(raw); // the other forms do not hold an x̂
  const forms = outputs.map((output, i) => stepBy(rules[i], z, output, noise));
  const chosen = FORMS.indexOf(form);
  return {
    ...run,
    latents: [...latents, x ? stepBy(rules[0], z, x, noise) : forms[chosen]],
    guesses: [...guesses, chosen === 0 ? outputs[0] : raw],
    apart: Math.max(run.apart, farthest(forms[0], forms[1]), farthest(forms[1], forms[2])),
  };
}

function farthest(one, other) {
  return one.reduce((most, value, i) => Math.max(most, Math.abs(value - other[i])), 0);
}

/** A whole run; `tell(run)` after each step says whether to go on. */
export async function finishRun(predict, state, tell) {
  let run = startRun(state);
  while (stepsLeft(run) > 0) {
    const eps = await predict(run.latents.at(-1), run.levels[run.guesses.length]);
    run = advanceRun(run, Array.from(eps), state);
    if (!tell(run)) break;
  }
  return run;
}

/** The picture whose bits are counted: the known one, or the latest guess. */
function pictureOf({ x, guesses }) {
  return x ?? guesses.at(-1) ?? null;
}

/** The cost of each step so far in bits/dim. */
export function runBits(run) {
  const { levels, guesses } = run;
  const x = pictureOf(run);
  return guesses.map((guess, k) => stepBits(x, guess, levels[k + 1], levels[k]));
}

/** The whole bound of a known picture in this draw, in bits/dim; null for others, or too early. */
export function runBound(run) {
  const { known, x, latents, levels } = run;
  if (!known || stepsLeft(run) > 0) return null;
  const ends = reconstructionBits(known, latents.at(-1), levels.at(-1)) + priorBits(x, levels[0]);
  return ends + sum(runBits(run));
}

/** The latent of a run at a level, or the last one before it: its place in the run. */
function momentOf({ levels, guesses, latents }, level) {
  // A latent is shown beside the guess that was made from it; only the last has none of its own.
  const newest = latents.length === levels.length ? guesses.length : guesses.length - 1;
  const reached = levels.findLastIndex((each) => each <= level + 1e-9);
  return Math.max(0, Math.min(newest, reached));
}

// Who predicts: ONNX Runtime on a page, the kernel in a notebook

let loading;

/** The page's denoiser, loaded once: a promise of predict(z, logsnr); `tell(share, bytes)`. */
export function pageDenoiser(tell) {
  loading ??= startWorker(tell).catch((error) => {
    loading = undefined;
    throw error;
  });
  return loading;
}

function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

async function startWorker(tell) {
  const worker = new Worker(new URL("lib/denoiser_worker.js", import.meta.url), { type: "module" });
  const waiting = new Map();
  let asked = 0;
  const ask = (question) =>
    new Promise((resolve, reject) => {
      waiting.set((asked += 1), { resolve, reject });
      worker.postMessage({ id: asked, ...question });
    });
  worker.onmessage = ({ data: { id, share, bytes, problem, eps } }) => {
    if (share !== undefined) return tell(share, bytes);
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    return problem ? reject(new Error(problem)) : resolve(eps);
  };
  worker.onerror = () => waiting.forEach(({ reject }) => reject(new Error("no answer")));
  try {
    await ask({ folder: new URL("../denoiser/", import.meta.url).href });
  } catch (error) {
    worker.terminate();
    throw error;
  }
  return (z, logsnr) => ask({ z, logsnr, side: SIDE });
}

/** The kernel's denoiser: {predict(z, logsnr), remove()}. */
export function kernelDenoiser(model) {
  const view = freshKey();
  const waiting = new Map(); // by the question's id; that of a stopped run may stay unanswered
  let asked = 0;
  const listen = () => {
    const { id, eps, problem } = model.get("_answer");
    const { resolve, reject } = waiting.get(id) ?? {};
    if (!waiting.delete(id)) return; // another view's
    if (problem) reject(new Error(problem));
    else resolve(eps);
  };
  model.on("change:_answer", listen);
  const predict = (z, logsnr) =>
    new Promise((resolve, reject) => {
      const id = `${view} ${(asked += 1)}`;
      waiting.set(id, { resolve, reject });
      model.set("_question", { id, z: Array.from(z), logsnr });
      model.save_changes();
    });
  return { predict, remove: () => model.off("change:_answer", listen) };
}

export function render({ model, el }) {
  const ui = panel(model, el);
  const image = (label) => ui.image({ label, width: SIDE, height: SIDE, scale: 1.3 });
  const [latent, guess, target] = ["zₜ", "x̂", "x"].map(image);
  for (const figure of ui.stage.children) figure.style.flexBasis = "5rem"; // three on a phone
  const chart = ui.chart({
    label: "Cost of each step",
    x: { label: "log SNR: from noise to picture", range: [0, 1] },
    y: { label: "bits/dim of a step", range: [0, 1] },
    height: 210,
    wide: true,
  });
  const kernel = model.address ? null : kernelDenoiser(model);
  let predict = kernel?.predict;
  let [run, settings, going] = [null, "", null];
  const main = ui.button("", () => (going ? stop() : predict ? sample() : load()));
  const progress = element("progress", { max: 1, value: 0, hidden: true });
  progress.setAttribute("aria-label", "Loading the denoiser");
  ui.buttons.prepend(main);
  ui.buttons.after(progress);

  function stop() {
    going = null;
    main.textContent = predict ? "Sample" : "Load the denoiser";
  }

  async function load() {
    going = "loading";
    main.textContent = "Loading …";
    progress.hidden = false;
    ui.say("The denoiser and its runtime are on their way.");
    try {
      predict = await pageDenoiser((share, bytes) => {
        if (!share) ui.say(`The denoiser and its runtime are on their way: ${megabytes(bytes)}.`);
        progress.value = share;
      });
      ui.say("The denoiser is here: press Sample.");
    } catch (error) {
      ui.say(`The denoiser could not be loaded: ${error.message}. ${ELSEWHERE}`);
    }
    progress.hidden = true;
    stop();
  }

  async function sample() {
    const mine = (going = {});
    main.textContent = "Stop";
    ui.say("");
    let drawn = 0;
    try {
      await finishRun(predict, ui.state(), (next) => {
        if (going !== mine) return false;
        run = next;
        if (performance.now() - drawn < DRAW_EVERY && stepsLeft(run) > 0) return true;
        drawn = performance.now();
        ui.update();
        return true;
      });
    } catch (error) {
      if (going === mine) ui.say(`The denoiser did not answer: ${error.message}.`);
    }
    if (going === mine) stop();
  }

  const remove = ui.show((state) => {
    const { look, pictures, ...chosen } = state;
    const asked = JSON.stringify(chosen);
    if (asked !== settings) {
      [settings, run] = [asked, startRun(state)];
      if (going !== "loading") stop();
    }
    const place = momentOf(run, look[0]);
    drawPictures(run, place, state);
    drawCosts(run, place, state);
    chart.handles([{ x: look[0], y: 0 }], (_, { x }) => ui.set({ look: [x] }), {
      labels: ["log SNR of the moment shown"],
      axis: "x",
      step: 0.1,
      reach: [state.ends[1], state.ends[0]],
    });
    readNumbers(run, place);
  });

  function drawPictures(run, place, { picture }) {
    const { levels, latents, guesses, known } = run;
    const [x, seen] = [pictureOf(run), guesses[Math.min(place, guesses.length - 1)]];
    const time = (1 - place / (levels.length - 1)).toFixed(2);
    latent.draw(latents[place], `latent zₜ at t = ${time}`);
    guess.draw(seen ?? BLANK, seen ? "guess x̂ from zₜ" : "guess x̂: none yet");
    const name = known ? `x, the ${picture}` : "x, the latest guess";
    target.draw(x ?? BLANK, x ? name : "x: none yet");
  }

  function drawCosts(run, place, { ends, picture }) {
    const { levels, known } = run;
    const costs = runBits(run);
    const boxes = costs.map((y1, k) => ({ x0: levels[k], x1: levels[k + 1], y0: 0, y1 }));
    const of = known ? `x the ${picture}` : "x the latest guess";
    const label = `KL( q(zₛ | zₜ, x) ‖ p(zₛ | zₜ) ) of each step, ${of}`;
    const marks = [bars(boxes, { color: "network", opacity: 0.75, label })];
    marks.push(rule({ x: levels[place] }, { color: "ink", width: 1, label: "latent shown" }));
    chart.draw(marks, {
      x: [ends[1], ends[0]],
      y: [0, 1.08 * Math.max(0.01, ...costs)],
    });
  }

  function readNumbers(run, place) {
    const { levels, guesses, apart } = run;
    const seen = guesses[Math.min(place, guesses.length - 1)];
    const beyond = seen?.filter((value) => Math.abs(value) > 1).length;
    const read = (key, label, value, unit, digits = 4) =>
      ui.read(key, label, value ?? null, { unit: value === null ? "" : unit, digits });
    read("level", "log SNR of zₜ", levels[place]);
    read("bits", "sum of the bars", seen ? sum(runBits(run)) : null, "bits/dim");
    read("bound", "bound, this draw", runBound(run), "bits/dim");
    read("beyond", "x̂ beyond ±1", seen ? (100 * beyond) / SIZE : null, "%", 3);
    read("apart", "forms differ by", seen ? apart : null, "", 2);
  }

  return () => {
    stop();
    kernel?.remove();
    remove();
  };
}
