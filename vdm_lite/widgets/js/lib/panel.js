// What every widget has: controls made from its fields, read-outs, reset, and a link to its state.

import { Chart, element, format, freshKey } from "./chart.js";

const LINK_PREFIX = "#widget-";
const SLIDER_STOPS = 200;

/** The frame of a widget in `el`; `model` is that of the page or of the notebook. */
export function panel(model, el) {
  return new Panel(model, el);
}

/** The number that a reader typed, or a sentence that says what is wrong with it. */
export function readNumber(typed, field) {
  const cleaned = typed.trim().replace(",", ".").replace("−", "-");
  const value = Number(cleaned);
  const range = `from ${numberText(field.low)} to ${numberText(field.high)}`;
  if (cleaned === "" || Number.isNaN(value))
    return { problem: `“${typed}” is not a number ${range}` };
  if (field.kind === "whole" && !Number.isInteger(value))
    return { problem: `${typed} is not a whole number` };
  if (value < field.low || value > field.high)
    return { problem: `${typed} is not in the range ${range}` };
  return { value };
}

/** The state as the end of a link: what differs from the initial values. */
function writeLink(fields, state) {
  const parts = new URLSearchParams();
  for (const { name, initial } of fields) {
    const [now, first] = [state[name], initial].map((value) => JSON.stringify(value));
    if (now !== first)
      parts.set(name, Array.isArray(state[name]) ? state[name].join(",") : String(state[name]));
  }
  return parts.toString();
}

/** The state that a link carries, or null where anything in it is damaged. */
function readLink(fields, written) {
  const state = Object.fromEntries(fields.map(({ name, initial }) => [name, initial]));
  for (const [name, value] of new URLSearchParams(written)) {
    const field = fields.find((each) => each.name === name);
    const read = field ? readField(field, value) : undefined;
    if (read === undefined) return null;
    state[name] = read;
  }
  return state;
}

function readField(field, written) {
  if (field.kind === "switch") return [false, true].find((value) => String(value) === written);
  if (field.kind === "choice") return field.options.includes(written) ? written : undefined;
  if (field.kind !== "curve") return readNumber(written, field).value;
  const numbers = written.split(",").map((part) => readNumber(part, field).value);
  return numbers.length === field.initial.length && !numbers.includes(undefined)
    ? numbers
    : undefined;
}

/** The places at which a slider stops: even ones, on a log scale where the field asks for it. */
function sliderStops({ kind, low, high, step, log }) {
  if (!log) {
    const count = Math.round((high - low) / step);
    return Array.from({ length: count + 1 }, (_, k) => Number((low + k * step).toPrecision(10)));
  }
  const stops = Array.from(
    { length: SLIDER_STOPS + 1 },
    (_, k) => low * (high / low) ** (k / SLIDER_STOPS),
  );
  const rounded = stops.map((stop) =>
    kind === "whole" ? Math.round(stop) : Number(stop.toPrecision(3)),
  );
  return [...new Set([low, ...rounded.filter((stop) => stop > low && stop < high), high])];
}

class Panel {
  constructor(model, el) {
    this.model = model;
    this.fields = model.get("_fields");
    this.key = freshKey();
    this.charts = [];
    this.readouts = new Map();
    this.turn = 0;
    this.controls = this.fields
      .filter(({ kind }) => kind !== "curve")
      .map((field) => this.control(field));
    this.build(el);
    this.follow = () => this.update();
    model.on("change", this.follow);
    if (model.address) this.followLinks();
  }

  build(el) {
    const title = element("p", { class: "vdm-title", id: this.key }, this.model.get("_title"));
    const controls = element(
      "div",
      { class: "vdm-controls" },
      ...this.controls.map(({ box }) => box),
    );
    this.stage = element("div", { class: "vdm-stage" });
    this.list = element("dl", { class: "vdm-readouts" });
    this.buttons = element("div", { class: "vdm-buttons" });
    this.button("Reset", () => this.reset());
    if (this.model.address) this.button("Copy link", () => this.copyLink());
    this.status = element("p", { class: "vdm-status", role: "status" });
    this.settings = element("p", { class: "vdm-settings" });
    this.spoken = element("p", { class: "vdm-spoken", role: "status" });
    this.root = element("section", { class: "vdm", "aria-labelledby": this.key }, title, controls);
    // Without this attribute JupyterLab takes the arrow keys from whatever has the focus.
    this.root.addEventListener("focusin", ({ target }) =>
      target.setAttribute("data-lm-suppress-shortcuts", "true"),
    );
    this.root.append(this.settings, this.stage, this.list, this.buttons, this.status, this.spoken);
    el.append(this.root);
  }

  // Fields and their controls

  state() {
    const names = [...this.fields.map(({ name }) => name), ...this.model.get("_constants")];
    return Object.fromEntries(names.map((name) => [name, this.model.get(name)]));
  }

  /**
   * Set fields from a widget's own code; numbers are held within their ranges. Until the next
   * drawing `moved` says that the change was made here, and not in Python.
   */
  set(values) {
    this.moved = true;
    for (const [name, value] of Object.entries(values)) {
      const { low, high } = this.fields.find((field) => field.name === name);
      const hold = (number) => Math.min(high, Math.max(low, number));
      const held = Array.isArray(value)
        ? value.map(hold)
        : typeof value === "number"
          ? hold(value)
          : value;
      this.model.set(name, held);
    }
    this.model.save_changes();
  }

  control(field) {
    const id = `${this.key}-${field.name}`;
    const label = element("label", { for: id }, field.label);
    const kinds = { choice: chooser, switch: switcher };
    const make = kinds[field.kind] ?? slider;
    const { parts, refresh } = make(field, id, (value) => this.set({ [field.name]: value }));
    return {
      field,
      refresh,
      box: element("div", { class: `vdm-field vdm-${field.kind}` }, label, ...parts),
    };
  }

  reset() {
    this.set(Object.fromEntries(this.fields.map(({ name, initial }) => [name, initial])));
    this.say("");
    if (location.hash === this.hash)
      history.replaceState(null, "", location.pathname + location.search);
  }

  // The link

  followLinks() {
    this.onHash = () => this.openLink();
    addEventListener("hashchange", this.onHash);
    this.openLink();
  }

  openLink() {
    const [address, written = ""] = location.hash.split("?");
    if (address !== LINK_PREFIX + this.model.address) return;
    this.hash = location.hash;
    this.root.id = address.slice(1); // book.js keeps it in view while the page still grows
    const state = readLink(this.fields, written);
    this.set(state ?? readLink(this.fields, ""));
    this.say(state ? "" : "The setting in this link could not be read: these are the defaults.");
    this.root.scrollIntoView({ block: "start" });
  }

  copyLink() {
    const written = writeLink(this.fields, this.state());
    this.hash = LINK_PREFIX + this.model.address + (written && `?${written}`);
    history.replaceState(null, "", this.hash);
    const copied = navigator.clipboard?.writeText(location.href) ?? Promise.reject();
    copied.then(
      () => this.say("Link copied: it opens this page with this setting."),
      () => this.say("The address bar now holds a link to this setting."),
    );
  }

  // What a widget shows

  chart(options) {
    // Two key presses within one frame: the second starts where the first has led.
    const made = new Chart({ ...options, afterKey: () => this.frame && this.drawNow() });
    this.charts.push(made);
    this.stage.append(made.element);
    return made;
  }

  image({ label, width, height, scale = 1 }) {
    const canvas = element("canvas", { width, height, role: "img", "aria-label": label });
    canvas.style.setProperty("--vdm-scale", scale);
    const caption = element("figcaption", {}, label);
    this.stage.append(element("figure", { class: "vdm-image" }, canvas, caption));
    const draw = (values, words = label) => {
      const context = canvas.getContext("2d");
      const picture = context.createImageData(width, height);
      values.forEach((value, i) => {
        const gray = Math.round(255 * Math.min(1, Math.max(0, (value + 1) / 2)));
        picture.data.set([gray, gray, gray, 255], 4 * i);
      });
      context.putImageData(picture, 0, 0);
      caption.textContent = words;
    };
    return { draw };
  }

  table({ label, columns }) {
    const head = element("tr", {}, ...columns.map((name) => element("th", { scope: "col" }, name)));
    const body = element("tbody");
    const table = element(
      "table",
      {},
      element("caption", {}, label),
      element("thead", {}, head),
      body,
    );
    this.stage.append(
      element(
        "div",
        { class: "vdm-table", tabindex: 0, role: "group", "aria-label": label },
        table,
      ),
    );
    const cell = (value) => (typeof value === "number" ? format(value) : value);
    const row = ([first, ...rest]) =>
      element(
        "tr",
        {},
        element("th", { scope: "row" }, cell(first)),
        ...rest.map((value) => element("td", {}, cell(value))),
      );
    return { draw: (rows) => body.replaceChildren(...rows.map(row)) };
  }

  place(made) {
    this.stage.append(made);
    return made;
  }

  button(label, onClick) {
    const made = element("button", { type: "button" }, label);
    made.addEventListener("click", onClick);
    this.buttons.append(made);
    return made;
  }

  /** A labelled number; `key` names it for tests, and the element holds all its digits. */
  read(key, label, value, { unit = "", digits = 4 } = {}) {
    if (!this.readouts.has(key)) {
      const number = element("data", { "data-readout": key });
      const name = element("dt");
      const after = element("span");
      this.list.append(element("div", {}, name, element("dd", {}, number, after)));
      this.readouts.set(key, { name, number, after });
    }
    const { name, number, after } = this.readouts.get(key);
    name.textContent = label;
    number.value = String(value);
    number.textContent = format(value, digits);
    after.textContent = unit && ` ${unit}`;
  }

  say(words) {
    this.status.textContent = words;
  }

  /** Draw now and after every change, at most once a frame. Returns what takes the widget away. */
  show(draw) {
    this.paint = () => {
      this.turn += 1;
      try {
        draw(this.state());
        this.moved = false;
        this.speak();
        if (this.failed) this.say("");
        this.failed = false;
      } catch (error) {
        console.error(error);
        this.failed = true;
        this.say(`This setting could not be shown: ${error.message}`);
      }
    };
    this.update();
    this.drawNow();
    return () => this.remove();
  }

  update() {
    for (const { field, refresh } of this.controls) refresh(this.model.get(field.name));
    this.frame ??= requestAnimationFrame(() => this.drawNow());
  }

  drawNow() {
    cancelAnimationFrame(this.frame);
    this.frame = null;
    this.paint?.();
  }

  /** Run `step()` again and again in short slices until it returns false or the state changes. */
  later(step) {
    const turn = this.turn;
    const slice = () => {
      const end = performance.now() + 8;
      let more = true;
      while (more !== false && performance.now() < end && turn === this.turn) more = step();
      if (turn !== this.turn) return;
      if (more === false) this.speak();
      else this.timer = setTimeout(slice);
    };
    clearTimeout(this.timer);
    this.timer = setTimeout(slice);
  }

  /** Tell print and screen readers what the picture shows; the latter once the reader pauses. */
  speak() {
    const said = [...this.readouts.values()]
      .map(
        ({ name, number, after }) =>
          `${name.textContent} ${number.textContent}${after.textContent}`,
      )
      .join(", ");
    const set = this.controls.map(
      ({ field }) => `${field.label} ${describe(field, this.model.get(field.name))}`,
    );
    this.settings.textContent = `Shown: ${set.join(", ")}.`;
    for (const chart of this.charts) chart.describe(said);
    clearTimeout(this.pause);
    const first = this.said === undefined;
    this.said = said;
    if (!first) this.pause = setTimeout(() => (this.spoken.textContent = said), 700);
  }

  remove() {
    this.turn += 1;
    clearTimeout(this.timer);
    clearTimeout(this.pause);
    cancelAnimationFrame(this.frame);
    this.model.off("change", this.follow);
    if (this.onHash) removeEventListener("hashchange", this.onHash);
    for (const chart of this.charts) chart.remove();
    this.root.remove();
  }
}

function describe(field, value) {
  if (field.kind === "switch") return value ? "on" : "off";
  if (field.kind === "choice") return value;
  return numberText(value) + (field.unit && ` ${field.unit}`);
}

function numberText(value) {
  return String(Number(value.toPrecision(6))).replace("-", "−");
}

function slider(field, id, set) {
  const stops = sliderStops(field);
  const range = element("input", { type: "range", id, min: 0, max: stops.length - 1, step: 1 });
  const typed = element("input", {
    type: "text",
    inputmode: "decimal",
    autocomplete: "off",
    id: `${id}-typed`,
  });
  typed.setAttribute("aria-label", `${field.label}, typed`);
  const problem = element("span", { class: "vdm-problem", role: "alert", id: `${id}-problem` });
  typed.setAttribute("aria-describedby", problem.id);
  let kept;
  range.addEventListener("input", () => set(stops[Number(range.value)]));
  typed.addEventListener("change", () => {
    const read = readNumber(typed.value, field);
    if (read.problem) {
      typed.value = numberText(kept);
      problem.textContent = `${read.problem}: kept ${numberText(kept)}.`;
    } else {
      problem.textContent = "";
      typed.value = numberText(read.value);
      set(read.value);
    }
  });
  const refresh = (value) => {
    if (value === kept) return; // another field has changed: what is being typed here stays
    problem.textContent = "";
    kept = value;
    const nearest = stops.reduce(
      (best, stop, k) => (Math.abs(stop - value) < Math.abs(stops[best] - value) ? k : best),
      0,
    );
    range.value = String(nearest);
    range.setAttribute("aria-valuetext", describe(field, value));
    typed.value = numberText(value);
  };
  const unit = element("span", { class: "vdm-unit" }, field.unit);
  return { parts: [range, element("span", { class: "vdm-typed" }, typed, unit), problem], refresh };
}

function chooser(field, id, set) {
  const select = element(
    "select",
    { id },
    ...field.options.map((name) => element("option", { value: name }, name)),
  );
  select.addEventListener("change", () => set(select.value));
  return { parts: [select], refresh: (value) => (select.value = value) };
}

function switcher(field, id, set) {
  const box = element("input", { type: "checkbox", id });
  box.addEventListener("change", () => set(box.checked));
  return { parts: [box], refresh: (value) => (box.checked = value) };
}
