// @ts-check
/**
 * The live view of a sweep: progress, the best trial, parallel coordinates, history, a table.
 * Everything that comes from data becomes a text node or a number of the picture's geometry.
 *
 * @typedef {{ at: number, text: string }} Tick
 * @typedef {{ name: string, kind: string, ticks: Tick[], metric: boolean }} Axis
 * @typedef {{ text: string, sort: number | null }} Cell
 * @typedef {{ number: number, run_id: string | null, state: string, mark: string,
 *   value: number | null, told: string, cells: Cell[], points: (number | null)[],
 *   tone: number | null, best: boolean, seconds: number | null, took: string,
 *   since: string | null, label: string }} Trial
 * @typedef {{ number: number, x: number, y: number, best: number, label: string }} Point
 * @typedef {{ maximize: boolean, sweep_id: string, state: string, mark: string, now: string, ticking: boolean,
 *   since: string, took: string, facts: string[], metric: string | null, columns: string[],
 *   counts: { done: number, total: number, told: string }, axes: Axis[], trials: Trial[],
 *   left: string | null,
 *   history: { points: Point[], ticks: Tick[], last: number },
 *   best: { number: number, value: string, given: string, command: string } | null, note: string | null,
 *   cause: { code: string, message: string, place: string, hint: string | null } | null,
 *   commands: { what: string, type: string }[] }} Document
 * @typedef {{ get(name: "document"): Document, on(event: string, listener: () => void): void,
 *   off(event: string, listener: () => void): void }} Model
 * @typedef {{ low: number, high: number }} Brush
 * @typedef {{ key: string, down: boolean }} Order
 */

import { clipped, clock, element, head, keepKeys, length, next, reason, shape } from "./shared.js";

const TONES = 6;
const PLOT = { top: 34, bottom: 12, side: 52, gap: 96, height: 260 };
const HISTORY = { top: 22, bottom: 18, left: 52, right: 14, height: 110 };

/**
 * Shorten in the middle: names of parameters often differ at their ends alone.
 *
 * @param {string} name
 * @param {number} limit
 */
function squeezed(name, limit) {
  if (name.length <= limit) return name;
  const tail = Math.floor(limit / 2) - 1;
  return `${name.slice(0, Math.max(1, limit - tail - 1))}…${name.slice(name.length - tail)}`;
}

// --- the head -----------------------------------------------------------------------------------

/** @param {Document} shown */
function heading(shown) {
  return [
    ...head(shown, shown.sweep_id),
    progress(shown.counts),
    best(shown),
    reason(shown.cause),
    shown.note ? element("p", { class: "nbm-note" }, shown.note) : null,
    next(shown.commands),
  ];
}

/** @param {Document["counts"]} counts */
function progress({ done, total, told }) {
  const filled = element("span");
  filled.style.width = `${(100 * done) / Math.max(1, total)}%`;
  return element(
    "div",
    { class: "nbm-progress" },
    element(
      "span",
      {
        class: "nbm-bar",
        role: "progressbar",
        "aria-label": "trials",
        "aria-valuemin": "0",
        "aria-valuemax": String(total),
        "aria-valuenow": String(done),
      },
      filled,
    ),
    element("span", {}, told),
  );
}

/** @param {Document} shown */
function best(shown) {
  if (!shown.best) return null;
  return element(
    "div",
    { class: "nbm-best" },
    element(
      "p",
      {},
      `★ best ${shown.metric ?? "value"} `,
      element("strong", {}, shown.best.value),
      ` by trial ${shown.best.number}: ${shown.best.given}`,
    ),
    element("p", {}, "Run it again ", element("code", {}, shown.best.command)),
  );
}

// --- parallel coordinates -----------------------------------------------------------------------

/** @param {number} place */
function height(place) {
  return PLOT.top + (1 - place) * (PLOT.height - PLOT.top - PLOT.bottom);
}

/** @param {Trial} trial @param {(index: number) => number} across */
function route(trial, across) {
  return trial.points
    .flatMap((place, index) => (place === null ? [] : [`${across(index)},${height(place)}`]))
    .join(" ");
}

/**
 * @param {Document} shown
 * @param {number} room
 * @param {Map<number, Brush>} brushes
 */
function parallel(shown, room, brushes) {
  const count = shown.axes.length;
  const width = Math.max(room, 2 * PLOT.side + PLOT.gap * (count - 1));
  const gap = (width - 2 * PLOT.side) / Math.max(1, count - 1);
  const across = (/** @type {number} */ index) => PLOT.side + gap * index;
  const svg = shape("svg", {
    class: "nbm-parallel",
    width,
    height: PLOT.height,
    role: "group",
    "aria-label": `parallel coordinates of ${shown.trials.length} trials`,
  });
  const valued = shown.trials.filter((trial) => trial.tone !== null);
  const strength = (/** @type {Trial} */ trial) => (trial.best ? TONES : (trial.tone ?? 0));
  valued.sort((a, b) => strength(a) - strength(b));
  for (const [kind, drawn] of /** @type {const} */ ([["nbm-line", true], ["nbm-reach", false]])) {
    for (const trial of valued) {
      const line = shape("polyline", { class: kind, points: route(trial, across), "data-trial": trial.number });
      if (drawn) line.setAttribute("data-tone", trial.best ? "best" : String(trial.tone));
      svg.append(line);
    }
  }
  shown.axes.forEach((axis, index) => svg.append(drawAxis(axis, index, across(index), gap)));
  for (const [index, brush] of brushes) svg.append(band(across(index), index, brush));
  return svg;
}

/** @param {Axis} axis @param {number} index @param {number} x @param {number} gap */
function drawAxis(axis, index, x, gap) {
  const letters = Math.floor(gap / 8);
  const name = shape("text", { class: "nbm-name", x, y: 16, "text-anchor": "middle" }, squeezed(axis.name, letters));
  name.append(shape("title", {}, axis.name));
  const hit = shape("rect", {
    class: "nbm-hit",
    x: x - 14,
    y: PLOT.top - 6,
    width: 28,
    height: PLOT.height - PLOT.top - PLOT.bottom + 12,
    tabindex: 0,
    role: "button",
    "data-axis": index,
    "aria-label": `filter by ${axis.name}: arrow keys move, with Shift resize, Escape clears`,
  });
  const group = shape(
    "g",
    { class: "nbm-axis" },
    shape("line", { x1: x, x2: x, y1: PLOT.top, y2: PLOT.height - PLOT.bottom }),
  );
  for (const tick of axis.ticks) {
    const y = height(tick.at);
    // The last axis, the metric's, has its numbers outside, where no line runs.
    const way = axis.metric ? 1 : -1;
    group.append(shape("line", { x1: x + 4 * way, x2: x, y1: y, y2: y }));
    const place = { x: x + 7 * way, y: y + 4, "text-anchor": axis.metric ? "start" : "end" };
    const room = index && !axis.metric ? Math.floor(gap / 9) : 7;
    const text = shape("text", place, clipped(tick.text, room));
    text.append(shape("title", {}, tick.text));
    group.append(text);
  }
  group.append(name, hit);
  return group;
}

/** @param {number} x @param {number} index @param {Brush} brush */
function band(x, index, { low, high }) {
  return shape("rect", {
    class: "nbm-brush",
    "data-brush": index,
    x: x - 6,
    width: 12,
    y: height(high),
    height: Math.max(2, height(low) - height(high)),
    rx: 3,
  });
}

// --- history ------------------------------------------------------------------------------------

/** @param {Document} shown @param {number} room */
function history(shown, room) {
  const { points, ticks, last } = shown.history;
  const width = Math.min(room, 720);
  const wide = width - HISTORY.left - HISTORY.right;
  const high = HISTORY.height - HISTORY.top - HISTORY.bottom;
  const across = (/** @type {number} */ x) => HISTORY.left + x * wide;
  const up = (/** @type {number} */ y) => HISTORY.top + (1 - y) * high;
  const title = `${shown.metric ?? "value"} by trial, and the best so far`;
  const svg = shape(
    "svg",
    { class: "nbm-history", width, height: HISTORY.height, role: "img", "aria-label": title },
    shape("text", { class: "nbm-name", x: HISTORY.left, y: 12 }, clipped(title, Math.floor(wide / 7))),
  );
  const path = points.map(({ x, best: y }, index) =>
    index ? `H${across(x)}V${up(y)}` : `M${across(x)},${up(y)}`,
  );
  svg.append(shape("path", { class: "nbm-steps-line", d: path.join("") }));
  for (const point of points) {
    const dot = shape("circle", { cx: across(point.x), cy: up(point.y), r: 3, "data-trial": point.number });
    dot.append(shape("title", {}, point.label));
    svg.append(dot);
  }
  const marks = shape("g", { class: "nbm-axis" });
  for (const tick of ticks.length > 1 ? [ticks[0], ticks[ticks.length - 1]] : ticks) {
    marks.append(shape("text", { x: HISTORY.left - 7, y: up(tick.at) + 4, "text-anchor": "end" }, clipped(tick.text, 7)));
  }
  const y = HISTORY.height - 3;
  marks.append(shape("text", { x: HISTORY.left, y }, "1"));
  marks.append(shape("text", { x: HISTORY.left + wide, y, "text-anchor": "end" }, String(last)));
  svg.append(marks);
  return svg;
}

// --- the table ----------------------------------------------------------------------------------

/**
 * The columns: what stands in the head, and what a trial is sorted by.
 *
 * @param {Document} shown
 * @returns {{ key: string, name: string, by: (trial: Trial) => number | string | null }[]}
 */
function columns(shown) {
  return [
    { key: "number", name: "trial", by: (trial) => trial.number },
    // The document has the trials best first.
    { key: "value", name: shown.metric ?? "value", by: (trial) => (trial.value === null ? null : shown.trials.indexOf(trial)) },
    ...shown.columns.map((name, index) => ({
      key: `column-${index}`,
      name,
      by: (/** @type {Trial} */ trial) => trial.cells[index].sort,
    })),
    { key: "state", name: "status", by: (trial) => trial.state },
    { key: "seconds", name: "took", by: (trial) => trial.seconds },
  ];
}

/** @param {Document} shown @param {Order} order */
function sorted(shown, order) {
  const by = columns(shown).find((column) => column.key === order.key)?.by ?? (() => null);
  return [...shown.trials].sort((a, b) => {
    const [left, right] = [by(a), by(b)];
    if (left === null || right === null) return Number(left === null) - Number(right === null);
    const apart = left < right ? -1 : left > right ? 1 : 0;
    return (order.down ? -apart : apart) || a.number - b.number;
  });
}

/** @param {Document} shown @param {Order} order */
function table(shown, order) {
  const heads = columns(shown).map(({ key, name }) => {
    const here = key === order.key;
    // Sorted by value means best first, which is downwards where more is better.
    const down = key === "value" && shown.maximize ? !order.down : order.down;
    const arrow = here ? (down ? " ↓" : " ↑") : "";
    return element(
      "th",
      { scope: "col", "aria-sort": here ? (down ? "descending" : "ascending") : "none" },
      element("button", { type: "button", "data-sort": key, title: `sort by ${name}` }, name + arrow),
    );
  });
  const rows = sorted(shown, order).map((trial) => {
    const texts = [`${trial.number}${trial.best ? " ★" : ""}`, trial.told, ...trial.cells.map((cell) => cell.text)];
    return element(
      "tr",
      { tabindex: "0", "data-trial": String(trial.number), class: trial.best ? "nbm-first" : "" },
      ...texts.map((text) => element("td", { title: text }, text)),
      element("td", {}, element("span", { "data-state": trial.state }, `${trial.mark} ${trial.state}`)),
      element("td", {}, clock(trial.took, shown.ticking ? trial.since : null)),
    );
  });
  return element(
    "div",
    { class: "nbm-trials", role: "region", "aria-label": "trials" },
    element(
      "table",
      { class: "nbm-table" },
      element("thead", {}, element("tr", {}, ...heads)),
      element("tbody", {}, ...rows),
    ),
    shown.left ? element("p", { class: "nbm-where" }, shown.left) : null,
  );
}

/** @returns {HTMLElement} */
function scale() {
  const made = element("span", { class: "nbm-scale", "aria-hidden": "true" }, "worse");
  for (let tone = 0; tone < TONES; tone += 1) {
    const patch = element("i");
    patch.style.background = `var(--nbm-tone-${tone})`;
    made.append(patch);
  }
  made.append("better");
  return made;
}

// --- the view -----------------------------------------------------------------------------------

/** @param {{ model: Model, el: HTMLElement }} view */
function render({ model, el }) {
  /** @type {Order} */
  const order = { key: "value", down: false };
  /** @type {Map<number, Brush>} */
  const brushes = new Map();
  const root = element("div", { class: "nbm nbm-sweep" });
  keepKeys(root);
  const top = element("div");
  const plot = element("div", { class: "nbm-plot" });
  const tools = element("div", { class: "nbm-tools" });
  const past = element("div", { class: "nbm-plot" });
  const bottom = element("div");
  const told = element("span", { class: "nbm-told", role: "status" });
  const clear = element("button", { type: "button" }, "Clear filters");
  let shown = model.get("document");
  let ahead = 0;
  let room = 0;
  /** @type {number | null} */
  let over = null;
  /** @type {{ index: number, from: number } | null} */
  let drag = null;
  let waiting = false;
  root.append(top, plot, tools, past, bottom);
  tools.append(told, clear, scale());
  el.replaceChildren(root);

  /** @param {Trial} trial */
  function inside(trial) {
    return [...brushes].every(([index, { low, high }]) => {
      const place = trial.points[index];
      return place !== null && place >= low - 1e-9 && place <= high + 1e-9;
    });
  }

  function say() {
    const kept = shown.trials.filter(inside).length;
    const trial = shown.trials.find((one) => one.number === over);
    clear.hidden = brushes.size === 0;
    if (trial) told.textContent = trial.label;
    else if (brushes.size) told.textContent = `${kept} of ${shown.trials.length} trials shown`;
    else told.textContent = "Drag along an axis to filter.";
    tools.hidden = plot.childElementCount === 0;
  }

  /** Mark the trial that is pointed at, and fade what the brushes leave out. */
  function mark() {
    const kept = new Set(shown.trials.filter(inside).map((trial) => String(trial.number)));
    for (const made of root.querySelectorAll("[data-trial]")) {
      const number = made.getAttribute("data-trial") ?? "";
      made.classList.toggle("nbm-over", number === String(over));
      made.classList.toggle("nbm-out", !kept.has(number));
      if (made.localName === "tr") made.toggleAttribute("hidden", !kept.has(number));
      if (made.classList.contains("nbm-reach")) made.toggleAttribute("hidden", !kept.has(number));
    }
    say();
  }

  function drawPlots() {
    const many = shown.trials.some((trial) => trial.tone !== null) && shown.axes.length > 1;
    plot.replaceChildren(...(many && room ? [parallel(shown, room, brushes)] : []));
    const grown = shown.history.points.length > 1 && room;
    past.replaceChildren(...(grown ? [history(shown, room)] : []));
  }

  function drawTable() {
    const before = bottom.querySelector(".nbm-trials");
    const [left, down] = [before?.scrollLeft ?? 0, before?.scrollTop ?? 0];
    bottom.replaceChildren(...(shown.trials.length ? [table(shown, order)] : []));
    bottom.querySelector(".nbm-trials")?.scrollTo(left, down);
  }

  /** Draw all anew, and put the focus back where it was. */
  function draw() {
    if (drag) {
      waiting = true;
      return;
    }
    const held = focused();
    shown = model.get("document");
    ahead = Date.now() - Date.parse(shown.now);
    root.dataset.state = shown.state;
    top.replaceChildren(...heading(shown).filter((part) => part !== null));
    drawPlots();
    drawTable();
    mark();
    tick();
    if (held) /** @type {HTMLElement | null} */ (root.querySelector(held))?.focus({ preventScroll: true });
  }

  function focused() {
    const at = root.contains(document.activeElement) ? document.activeElement : null;
    for (const name of ["data-trial", "data-sort", "data-axis"]) {
      const value = at?.getAttribute(name);
      if (value) return `${at?.localName}[${name}="${value}"]`;
    }
    return null;
  }

  function tick() {
    for (const time of root.querySelectorAll("[data-since]")) {
      const since = Date.parse(time.getAttribute("data-since") ?? "");
      time.textContent = length((Date.now() - ahead - since) / 1000);
    }
  }

  /** @param {Event} event */
  function point(event) {
    const made = /** @type {Element} */ (event.target).closest("[data-trial]");
    const number = made ? Number(made.getAttribute("data-trial")) : null;
    if (number === over) return;
    over = number;
    mark();
  }

  /** @param {PointerEvent} event */
  function placeOf(event) {
    const box = plot.firstElementChild?.getBoundingClientRect();
    const span = PLOT.height - PLOT.top - PLOT.bottom;
    return Math.min(1, Math.max(0, 1 - (event.clientY - (box?.top ?? 0) - PLOT.top) / span));
  }

  /** @param {number} index @param {Brush | null} brush */
  function setBrush(index, brush) {
    if (brush) brushes.set(index, brush);
    else brushes.delete(index);
    const svg = plot.firstElementChild;
    svg?.querySelector(`[data-brush="${index}"]`)?.remove();
    const hit = svg?.querySelector(`[data-axis="${index}"]`);
    if (brush && hit) svg?.append(band(Number(hit.getAttribute("x")) + 14, index, brush));
    mark();
  }

  plot.addEventListener("pointerdown", (event) => {
    const hit = /** @type {Element} */ (event.target).closest("[data-axis]");
    if (!hit || event.button !== 0) return;
    drag = { index: Number(hit.getAttribute("data-axis")), from: placeOf(event) };
    hit.setPointerCapture(event.pointerId);
  });
  plot.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const to = placeOf(event);
    setBrush(drag.index, { low: Math.min(drag.from, to), high: Math.max(drag.from, to) });
  });
  const drop = (/** @type {PointerEvent} */ event) => {
    if (!drag) return;
    // A click without a drag clears the axis.
    if (Math.abs(placeOf(event) - drag.from) < 0.01) setBrush(drag.index, null);
    drag = null;
    if (waiting) draw();
    waiting = false;
  };
  plot.addEventListener("pointerup", drop);
  plot.addEventListener("pointercancel", drop);
  plot.addEventListener("keydown", (event) => {
    const hit = /** @type {Element} */ (event.target).closest("[data-axis]");
    if (!hit) return;
    const index = Number(hit.getAttribute("data-axis"));
    if (event.key === "Escape" && brushes.has(index)) setBrush(index, null);
    else if (event.key === "ArrowUp" || event.key === "ArrowDown") nudge(index, event);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  /** @param {number} index @param {KeyboardEvent} event */
  function nudge(index, event) {
    const by = event.key === "ArrowUp" ? 0.1 : -0.1;
    const { low, high } = brushes.get(index) ?? { low: 0, high: 0 };
    if (!brushes.has(index)) {
      setBrush(index, by > 0 ? { low: 0.5, high: 1 } : { low: 0, high: 0.5 });
    } else if (event.shiftKey) {
      setBrush(index, { low, high: Math.min(1, Math.max(low + 0.02, high + by)) });
    } else {
      const moved = Math.min(1 - high, Math.max(-low, by));
      setBrush(index, { low: low + moved, high: high + moved });
    }
  }

  clear.addEventListener("click", () => {
    for (const index of [...brushes.keys()]) setBrush(index, null);
  });
  bottom.addEventListener("click", (event) => {
    const key = /** @type {Element} */ (event.target).closest("[data-sort]")?.getAttribute("data-sort");
    if (!key) return;
    order.down = key === order.key && !order.down;
    order.key = key;
    draw();
    /** @type {HTMLElement | null} */ (root.querySelector(`[data-sort="${key}"]`))?.focus();
  });
  bottom.addEventListener("keydown", (event) => {
    const row = /** @type {Element} */ (event.target).closest("tr[data-trial]");
    const way = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    if (!row || !way) return;
    let other = /** @type {any} */ (row)[way];
    while (other?.hidden) other = other[way];
    other?.focus();
    event.preventDefault();
  });
  plot.addEventListener("click", (event) => {
    const line = /** @type {Element} */ (event.target).closest(".nbm-reach");
    const number = line?.getAttribute("data-trial");
    if (number) /** @type {HTMLElement | null} */ (bottom.querySelector(`tr[data-trial="${number}"]`))?.focus();
  });
  root.addEventListener("pointerover", point);
  root.addEventListener("pointerleave", () => {
    over = null;
    mark();
  });
  root.addEventListener("focusin", point);

  const sized = new ResizeObserver(() => {
    const now = Math.floor(top.getBoundingClientRect().width);
    if (now === room || now === 0 || drag) return;
    room = now;
    drawPlots();
    mark();
  });
  draw();
  sized.observe(root);
  model.on("change:document", draw);
  const ticking = setInterval(tick, 1000);
  return () => {
    clearInterval(ticking);
    sized.disconnect();
    model.off("change:document", draw);
  };
}

export default { render };
