// A small chart in SVG: axes, marks, a legend and handles. Marks are plain objects.

const MARGIN = { left: 48, right: 18, top: 26, bottom: 40 };
const WIDTH = 560; // until its place on the page is known
const NAMES_MARGIN = 64; // the left margin of a y axis with names
const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };

/** A curve through (xs[i], ys[i]); numbers that are not finite break it. */
export function line(xs, ys, style = {}) {
  return { kind: "line", xs, ys, ...style };
}

/** The area between ys and `base` (a number or an array, 0 by default). */
export function area(xs, ys, style = {}) {
  return { kind: "area", xs, ys, base: 0, ...style };
}

/** Rectangles {x0, x1, y0, y1}. */
export function bars(rectangles, style = {}) {
  return { kind: "bars", rectangles, ...style };
}

/** Points (xs[i], ys[i]) of radius r in pixels. */
export function dots(xs, ys, style = {}) {
  return { kind: "dots", xs, ys, r: 4, ...style };
}

/** A line across the chart, at {x} or at {y}. */
export function rule(place, style = {}) {
  return { kind: "rule", place, color: "muted", ...style };
}

/** A word at (x, y); anchor: "start", "middle" or "end". */
export function text(x, y, string, style = {}) {
  return { kind: "text", x, y, string, color: "ink", anchor: "middle", ...style };
}

/** An element with attributes and children (elements or strings). */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** An id that no other widget on the page has, whichever bundle that one came in. */
export function freshKey() {
  return `vdm-${Math.random().toString(36).slice(2, 9)}`;
}

/** A number as a reader wants it: `digits` significant ones, no trailing zeros of large numbers. */
export function format(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  let shown;
  if (size >= 1e6 || size < 1e-4) {
    const [mantissa, exponent] = size.toExponential(Math.max(0, digits - 2)).split("e");
    shown = `${mantissa}·10${superscript(Number(exponent))}`;
  } else {
    const places = Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
    shown = size.toFixed(Math.min(places, 6));
  }
  return (value < 0 ? "−" : "") + shown;
}

function superscript(whole) {
  const raised = [...String(Math.abs(whole))].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]);
  return (whole < 0 ? "⁻" : "") + raised.join("");
}

function escapeText(string) {
  return String(string).replace(/[&<>"]/g, (sign) => ENTITIES[sign]);
}

/** About `count` round numbers in [low, high]; on a log axis, powers of ten. */
function ticks(low, high, count, log = false) {
  if (log) {
    const [first, last] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
    const every = Math.max(1, Math.ceil((last - first + 1) / count));
    const found = [];
    for (let k = first; k <= last; k += every) found.push(10 ** k);
    return found;
  }
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) {
    found.push(Number((k * step).toPrecision(12)));
  }
  return found;
}

function tickLabel(value, log) {
  if (log && (value >= 1e4 || value < 1e-2))
    return `10${superscript(Math.round(Math.log10(value)))}`;
  return String(value).replace("-", "−");
}

/**
 * One chart. `options`: {label, x: {label, range, log, ticks: [values]}, y: {…}, height, wide};
 * y.names says what stands at the ticks 0, 1, … of a y axis that is a list of rows. After a key
 * has moved a handle, `afterKey()` is called.
 */
export class Chart {
  constructor(options) {
    this.options = { height: 220, ...options };
    this.marks = [];
    this.ranges = { x: options.x.range, y: options.y.range };
    this.key = freshKey();
    this.width = WIDTH;
    this.svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    this.svg.setAttribute("role", "img");
    this.plot = element("div", { class: "vdm-plot" }, this.svg);
    this.legend = element("div", { class: "vdm-legend" });
    this.element = element("figure", { class: "vdm-chart" }, this.plot, this.legend);
    if (options.wide) this.element.classList.add("vdm-wide");
    this.knobs = [];
    this.describe("");
    // A chart is drawn for its true width, so that its letters keep their size on a phone. The
    // observer tells it; to ask for it at each drawing would lay out the whole page each time.
    this.observer = new ResizeObserver(([{ contentRect }]) => {
      this.width = contentRect.width || this.width;
      this.paint();
    });
    this.observer.observe(this.plot);
  }

  /** Show these marks; `ranges` {x, y} replace the axes' ranges from here on. */
  draw(marks, ranges = {}) {
    this.marks = marks;
    Object.assign(this.ranges, ranges);
    this.paint();
    this.writeLegend();
  }

  /** What a screen reader says of the picture. */
  describe(words) {
    this.svg.setAttribute("aria-label", `${this.options.label}. ${words}`.trim());
  }

  paint() {
    const { width } = this;
    const { height } = this.options;
    const { right, top, bottom } = MARGIN;
    const left = this.options.y.names ? NAMES_MARGIN : MARGIN.left;
    this.box = { left, top, width: width - left - right, height: height - top - bottom };
    this.hatches = new Set();
    const marks = this.marks.map((mark) => this.markup(mark)).join("");
    const { width: w, height: h } = this.box;
    const size = { width, height, viewBox: `0 0 ${width} ${height}` };
    for (const [name, value] of Object.entries(size)) {
      if (this.svg.getAttribute(name) !== String(value)) this.svg.setAttribute(name, value);
    }
    this.svg.innerHTML = `<defs>${[...this.hatches].map((color) => this.hatch(color)).join("")}
      <clipPath id="${this.key}"><rect x="${left}" y="${top - 2}" width="${w}" height="${h + 4}"/>
      </clipPath></defs>${this.axes()}<g clip-path="url(#${this.key})">${marks}</g>`;
    this.placeKnobs();
  }

  /** Pixels of a value on an axis. */
  pixel(axis, value) {
    const [low, high] = this.ranges[axis];
    const log = this.options[axis].log;
    const share = log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
    const { left, top, width, height } = this.box;
    return axis === "x" ? left + share * width : top + (1 - share) * height;
  }

  /** The value on an axis at a pixel: the inverse of `pixel`. */
  value(axis, pixel) {
    const { left, top, width, height } = this.box;
    const share = axis === "x" ? (pixel - left) / width : 1 - (pixel - top) / height;
    const [low, high] = this.ranges[axis];
    return this.options[axis].log ? low * (high / low) ** share : low + share * (high - low);
  }

  axes() {
    const { left, top, width, height } = this.box;
    const { x, y } = this.options;
    const bottom = top + height;
    const across = x.ticks ?? ticks(...this.ranges.x, Math.max(4, Math.round(width / 60)), x.log);
    const up = y.ticks ?? ticks(...this.ranges.y, Math.max(2, Math.round(height / 40)), y.log);
    const parts = [
      `<line class="vdm-axis" x1="${left}" x2="${left + width}" y1="${bottom}" y2="${bottom}"/>`,
    ];
    for (const value of across) {
      const at = this.pixel("x", value);
      parts.push(`<line class="vdm-axis" x1="${at}" x2="${at}" y1="${bottom}" y2="${bottom + 4}"/>
        <text x="${at}" y="${bottom + 17}" text-anchor="middle">${tickLabel(value, x.log)}</text>`);
    }
    for (const value of up) {
      const at = this.pixel("y", value);
      parts.push(`<line class="vdm-grid" x1="${left}" x2="${left + width}" y1="${at}" y2="${at}"/>
        <text x="${left - 6}" y="${at + 4}" text-anchor="end">${y.names?.[value] ?? tickLabel(value, y.log)}</text>`);
    }
    parts.push(`<text class="vdm-label" x="${left + width / 2}" y="${bottom + 34}"
      text-anchor="middle">${escapeText(x.label)}</text>
      <text class="vdm-label" x="4" y="13">${escapeText(y.label)}</text>`);
    return parts.join("");
  }

  markup(mark) {
    const paint = `var(--vdm-${mark.color ?? "ink"})`;
    const stroke = `fill:none;stroke:${paint};stroke-width:${mark.width ?? 2}`;
    const dash = mark.dash ? ` stroke-dasharray="${mark.dash}"` : "";
    const fill = `fill:${this.fill(mark, paint)};fill-opacity:${mark.opacity ?? (mark.hatch ? 1 : 0.35)}`;
    if (mark.kind === "line")
      return `<path d="${this.path(mark.xs, mark.ys)}" style="${stroke}"${dash}/>`;
    if (mark.kind === "area") return `<path d="${this.outline(mark)}" style="${fill}"/>`;
    if (mark.kind === "bars") return mark.rectangles.map((r) => this.rectangle(r, fill)).join("");
    if (mark.kind === "rule") return this.crossing(mark.place, stroke, dash);
    if (mark.kind === "text") {
      return `<text x="${this.pixel("x", mark.x)}" y="${this.pixel("y", mark.y)}"
        text-anchor="${mark.anchor}" style="fill:${paint}">${escapeText(mark.string)}</text>`;
    }
    const inside = mark.hollow ? "var(--vdm-paper)" : paint;
    return Array.from(mark.xs, (x, i) => {
      const [cx, cy] = [this.pixel("x", x), this.pixel("y", mark.ys[i])];
      if (!Number.isFinite(cx + cy)) return "";
      return `<circle cx="${cx.toFixed(1)}" cy="${cy.toFixed(1)}" r="${mark.r}"
        style="fill:${inside};stroke:${paint}"/>`;
    }).join("");
  }

  fill(mark, paint) {
    if (!mark.hatch) return paint;
    this.hatches.add(mark.color ?? "ink");
    return `url(#${this.key}-${mark.color ?? "ink"})`;
  }

  hatch(color) {
    return `<pattern id="${this.key}-${color}" width="6" height="6" patternUnits="userSpaceOnUse"
      patternTransform="rotate(45)"><rect width="6" height="6" style="fill:var(--vdm-paper)"/>
      <rect width="3" height="6" style="fill:var(--vdm-${color})"/></pattern>`;
  }

  path(xs, ys) {
    let pen = "M";
    let path = "";
    for (let i = 0; i < xs.length; i++) {
      const [x, y] = [this.pixel("x", xs[i]), this.pixel("y", ys[i])];
      if (!Number.isFinite(x + y)) {
        pen = "M";
        continue;
      }
      path += `${pen}${x.toFixed(1)} ${Math.max(-1e4, Math.min(1e4, y)).toFixed(1)}`;
      pen = "L";
    }
    return path;
  }

  outline({ xs, ys, base }) {
    if (xs.length === 0) return "";
    const floor = this.options.y.log ? this.ranges.y[0] : base;
    const below = Array.from(xs, (_, i) => (typeof floor === "number" ? floor : floor[i]));
    const back = this.path([...xs].reverse(), below.reverse());
    return `${this.path(xs, ys)}L${back.slice(1)}Z`;
  }

  rectangle({ x0, x1, y0, y1 }, fill) {
    const across = [this.pixel("x", x0), this.pixel("x", x1)].sort((a, b) => a - b);
    const up = [this.pixel("y", y0), this.pixel("y", y1)].sort((a, b) => a - b);
    return `<rect x="${across[0].toFixed(2)}" y="${up[0].toFixed(2)}"
      width="${(across[1] - across[0]).toFixed(2)}" height="${(up[1] - up[0]).toFixed(2)}"
      style="${fill}"/>`;
  }

  crossing(place, stroke, dash) {
    const { left, top, width, height } = this.box;
    const [axis, value] = Object.entries(place)[0];
    const at = this.pixel(axis, value);
    const ends =
      axis === "x"
        ? `x1="${at}" x2="${at}" y1="${top}" y2="${top + height}"`
        : `x1="${left}" x2="${left + width}" y1="${at}" y2="${at}"`;
    return `<line ${ends} style="${stroke}"${dash}/>`;
  }

  writeLegend() {
    const named = this.marks.filter((mark) => mark.label);
    const written = JSON.stringify(
      named.map(({ label, kind, color, dash, hatch }) => [label, kind, color, dash, hatch]),
    );
    if (written === this.written) return;
    this.written = written;
    this.legend.innerHTML = named
      .map((mark) => `<span>${this.swatch(mark)}${escapeText(mark.label)}</span>`)
      .join("");
  }

  swatch(mark) {
    const paint = `var(--vdm-${mark.color ?? "ink"})`;
    const dash = mark.dash ? ` stroke-dasharray="${mark.dash}"` : "";
    let inside = `<rect width="22" height="12" style="fill:${this.fill(mark, paint)};fill-opacity:${mark.opacity ?? (mark.hatch ? 1 : 0.35)}"/>`;
    if (mark.kind === "line" || mark.kind === "rule") {
      inside = `<line x2="22" y1="6" y2="6" style="stroke:${paint};stroke-width:${mark.width ?? 2}"${dash}/>`;
    } else if (mark.kind === "dots") {
      inside = `<circle cx="11" cy="6" r="4" style="fill:${mark.hollow ? "var(--vdm-paper)" : paint};stroke:${paint}"/>`;
    }
    return `<svg width="22" height="12" aria-hidden="true">${inside}</svg>`;
  }

  /**
   * Dots that the reader drags or moves with the arrow keys: `points` [{x, y}], in data units;
   * `onMove(index, {x, y})` gets the wished place. options: {labels, color, step, axis: "x" or
   * "y", reach: [low, high] along that axis, by default its range}.
   */
  handles(points, onMove, options = {}) {
    this.moves = { points, onMove, axis: "y", color: "ink", step: 0.1, ...options };
    while (this.knobs.length > points.length) this.knobs.pop().remove();
    while (this.knobs.length < points.length) this.knobs.push(this.knob(this.knobs.length));
    this.placeKnobs();
  }

  knob(index) {
    const knob = element("span", { class: "vdm-knob", role: "slider", tabindex: 0 });
    knob.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      knob.focus();
      knob.setPointerCapture(event.pointerId);
    });
    knob.addEventListener("pointermove", (event) => {
      if (!knob.hasPointerCapture(event.pointerId)) return;
      const frame = this.plot.getBoundingClientRect();
      this.move(index, {
        x: this.value("x", event.clientX - frame.left),
        y: this.value("y", event.clientY - frame.top),
      });
    });
    knob.addEventListener("keydown", (event) => {
      const { points, step, axis } = this.moves;
      const push = step * (event.shiftKey ? 10 : 1);
      const ways = {
        ArrowUp: push,
        ArrowDown: -push,
        ArrowRight: push,
        ArrowLeft: -push,
        PageUp: 10 * step,
        PageDown: -10 * step,
        Home: -Infinity,
        End: Infinity,
      };
      if (!ways[event.key]) return;
      event.preventDefault();
      this.move(index, { [axis]: points[index][axis] + ways[event.key] });
      this.options.afterKey?.();
    });
    this.plot.append(knob);
    return knob;
  }

  /** Ask for a new place along the handle's axis; across it, it stays. */
  move(index, wish) {
    const { points, axis, onMove } = this.moves;
    const [low, high] = this.reach();
    onMove(index, { ...points[index], [axis]: Math.min(high, Math.max(low, wish[axis])) });
  }

  reach() {
    const { axis, reach } = this.moves;
    return reach ?? [...this.ranges[axis]].sort((a, b) => a - b);
  }

  placeKnobs() {
    this.knobs.forEach((knob, i) => {
      const { points, axis, color, labels } = this.moves;
      const point = points[i];
      const [low, high] = this.reach();
      knob.style.left = `${this.pixel("x", point.x)}px`;
      knob.style.top = `${this.pixel("y", point.y)}px`;
      knob.style.setProperty("--vdm-knob", `var(--vdm-${color})`);
      const meaning = {
        "aria-label": labels[i],
        "aria-orientation": axis === "y" ? "vertical" : "horizontal",
        "aria-valuemin": low,
        "aria-valuemax": high,
        "aria-valuenow": point[axis],
        "aria-valuetext": format(point[axis]),
      };
      for (const [name, value] of Object.entries(meaning)) knob.setAttribute(name, value);
    });
  }

  remove() {
    this.observer.disconnect();
  }
}
