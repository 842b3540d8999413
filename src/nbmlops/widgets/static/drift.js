// @ts-check
/**
 * The live view of a monitoring report. Everything that comes from data becomes a text node or an
 * attribute of the picture's geometry, never markup.
 *
 * @typedef {import("./distributions.js").Column} Column
 * @typedef {{ since: string, until: string }} Stretch
 * @typedef {import("./overview.js").Document} Document
 * @typedef {{ selectable: boolean, refreshable: boolean, selected: Stretch | null,
 *   problem: string | null, answered: number }} Hooks
 * @typedef {{ get(name: string): any, set(name: string, value: unknown): void,
 *   save_changes(): void, on(event: string, listener: () => void): void,
 *   off(event: string, listener: () => void): void }} Model
 */

import { detail, tile } from "./features.js";
import { heading, metrics, overview } from "./overview.js";
import { clipped, element } from "./shared.js";
import { axis, cellTold, chartRow, chartTold, effectChart, heatRow, keyOf, legend, pieceTold, span } from "./timeline.js";

const ROWS = 30;
const SETTLED_MS = 350;
const EVERY_MS = 10_000;
let views = 0;

// --- the view -----------------------------------------------------------------------------------

/** @param {{ model: Model, el: HTMLElement }} view */
function render({ model, el }) {
  const id = `nbm-detail-${(views += 1)}`;
  /** @type {Document} */
  let shown = model.get("document");
  /** What the reader has done; a new document leaves it as it is. */
  const state = {
    /** @type {string | null} */ open: null,
    tiles: false,
    all: false,
    /** @type {string | null} */ row: null,
    /** @type {number | null} */ at: null,
    /** @type {[number, number] | null} */ range: null,
  };
  /** @type {{ from: number, x: number, lane: Element, moved: boolean } | null} */
  let drag = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let settling;
  let asked = false;

  const top = element("div");
  const problem = element("p", { class: "nbm-problem", role: "alert" });
  const filter = /** @type {HTMLInputElement} */ (
    element("input", {
      class: "nbm-filter",
      type: "search",
      placeholder: "Filter features",
      "aria-label": "Filter features by name",
    })
  );
  const count = heading("");
  const key = (/** @type {string} */ side) => element("span", { class: "nbm-key", "data-side": side });
  const sides = element("span", { class: "nbm-legend" }, key("reference"), "training", key("window"), "window");
  const overTime = element("button", { type: "button" }, "Over time");
  const distributions = element("button", { type: "button" }, "Distributions");
  const tabs = element("span", { class: "nbm-tabs", role: "group", "aria-label": "Features" }, overTime, distributions);
  const refresh = element("button", { type: "button", class: "nbm-close" }, "Refresh");
  const live = /** @type {HTMLInputElement} */ (element("input", { type: "checkbox" }));
  const following = element("span", { class: "nbm-follow" }, refresh, element("label", {}, live, " live"));
  const bar = element("div", { class: "nbm-bar" }, count, tabs, sides, filter, following);
  const chosen = element("span", { class: "nbm-facts", role: "status" });
  const every = element("button", { type: "button", class: "nbm-close", "data-key": "all" }, "All");
  const choice = element("div", { class: "nbm-choice" }, chosen, every);
  const scale = element("div");
  const times = element("div");
  const heat = element("div", { class: "nbm-rows", role: "group", "aria-label": "Drift by feature over time. The arrow keys move, Enter opens a feature, with Shift they choose slices." });
  const more = element("button", { type: "button", class: "nbm-close nbm-more" });
  const grid = element("div", { class: "nbm-grid" });
  const none = element("p", { class: "nbm-none", role: "status" });
  const charts = element("div");
  const tip = element("div", { class: "nbm-tip", role: "status" });
  // One of each over all lanes, whose number may be large.
  const before = element("i", { class: "nbm-veil nbm-before" });
  const after = element("i", { class: "nbm-veil nbm-after" });
  const cursor = element("i", { class: "nbm-cursor" });
  const spot = element("i", { class: "nbm-spot" });
  const lanes = element("div", { class: "nbm-lanes" }, times, heat, grid, none, more, charts, before, after, cursor);
  const stage = element("div", { class: "nbm-stage" }, choice, scale, lanes, tip);
  const table = element("div");
  // The notebook's shortcuts are not meant for keys that are typed in here.
  const root = element("div", { class: "nbm-drift", "data-lm-suppress-shortcuts": "true" });
  root.append(top, problem, table, bar, stage);
  el.replaceChildren(root);

  /** @type {Map<Element, string>} */
  const drawn = new Map();

  /**
   * Draw a part anew where what it shows is another than before.
   *
   * @param {HTMLElement} part
   * @param {unknown} what
   * @param {() => Node[]} make
   */
  function renew(part, what, make) {
    const now = JSON.stringify(what);
    if (drawn.get(part) === now) return false;
    drawn.set(part, now);
    part.replaceChildren(...make());
    return true;
  }

  /** @returns {Map<string, Column>} */
  function columns() {
    const { columns: all, prediction } = shown.report;
    /** @type {[string, Column][]} */
    const found = all.map((column) => [`column:${column.name}`, column]);
    return new Map(prediction ? [[`prediction:${prediction.name}`, prediction], ...found] : found);
  }

  // --- drawing ---

  /** Draw all that has changed; the focus, the opened feature and what was chosen stay. */
  function draw() {
    const held = focused();
    shown = model.get("document");
    const { timeline, report } = shown;
    if (!timeline) state.tiles = true;
    renew(top, [report.verdict, shown.title, shown.facts, shown.why, report.questions], () => overview(shown));
    renew(table, [shown.metrics, shown.traffic], () => metrics(shown));
    const drifted = report.columns.filter((column) => column.verdict === "drift").length;
    count.textContent = `${report.columns.length} features, ${drifted} drifted`;
    const all = [...columns()];
    renew(grid, [report.columns, report.prediction], () => all.map(([name, column]) => tile(column, name, id)));
    renew(scale, [shown.levels, timeline !== null], () => (timeline ? [legend(shown.levels)] : []));
    renew(times, [timeline?.ticks, timeline?.pieces], () => (timeline ? [axis(timeline)] : []));
    renew(heat, timeline?.rows, () => (timeline?.rows ?? []).map((row) => heatRow(row, id)));
    renew(charts, [timeline?.charts, timeline?.pieces.length], drawCharts);
    place();
    hooks();
    if (held) byKey(held)?.focus({ preventScroll: true });
  }

  function drawCharts() {
    const { charts: all = [], pieces = [] } = shown.timeline ?? {};
    return [
      ["performance", "Performance over time"],
      ["traffic", "Traffic"],
    ].flatMap(([kind, words]) => {
      const rows = all.filter((chart) => chart.kind === kind);
      return rows.length ? [heading(words), ...rows.map((chart) => chartRow(chart, pieces.length))] : [];
    });
  }

  /** Show what the filter and the two views leave, and the opened feature below its own. */
  function place() {
    const { timeline } = shown;
    const wanted = filter.value.trim().toLowerCase();
    const fits = (/** @type {Element} */ made) =>
      (made.getAttribute("data-row") ?? "").replace(/^\w+:/, "").toLowerCase().includes(wanted);
    const rows = /** @type {HTMLElement[]} */ ([...heat.querySelectorAll(".nbm-track")]);
    const tiles = /** @type {HTMLElement[]} */ ([...grid.querySelectorAll(".nbm-tile")]);
    for (const made of tiles) made.hidden = !fits(made);
    const fitting = rows.filter(fits);
    const kept = new Set(state.all ? fitting : fitting.slice(0, ROWS));
    for (const made of rows) made.hidden = !kept.has(made);
    const current = state.tiles ? tiles.filter((made) => !made.hidden) : [...kept];
    none.textContent = current.length || !(state.tiles ? tiles : rows).length ? "" : "No feature has that in its name.";
    more.hidden = state.tiles || fitting.length <= ROWS;
    more.textContent = state.all ? "Show fewer" : `Show all ${fitting.length} rows`;
    grid.hidden = !state.tiles;
    sides.hidden = !state.tiles;
    scale.hidden = heat.hidden = state.tiles;
    tabs.hidden = times.hidden = choice.hidden = !timeline;
    overTime.setAttribute("aria-pressed", String(!state.tiles));
    distributions.setAttribute("aria-pressed", String(state.tiles));
    const stops = [...kept].map((made) => made.getAttribute("data-row"));
    const stop = stops.includes(state.row) ? state.row : stops[0];
    for (const made of rows) {
      made.firstElementChild?.setAttribute("tabindex", made.getAttribute("data-row") === stop ? "0" : "-1");
    }
    panel(current);
    point();
  }

  /** @param {HTMLElement[]} current */
  function panel(current) {
    root.querySelector(".nbm-detail")?.remove();
    for (const made of root.querySelectorAll("[aria-expanded=true]")) made.setAttribute("aria-expanded", "false");
    const made = current.find((one) => one.getAttribute("data-row") === state.open);
    const column = state.open === null ? undefined : columns().get(state.open);
    if (!made || !column) {
      state.open = null;
      return;
    }
    const row = shown.timeline?.rows.find((one) => keyOf(one) === state.open);
    const past = row && shown.timeline ? effectChart(row, shown.timeline.pieces) : null;
    made.after(detail(column, { id, room: root.clientWidth - 24, past, close }));
    const button = made.localName === "button" ? made : made.firstElementChild;
    button?.setAttribute("aria-expanded", "true");
  }

  /** @param {string} name */
  function toggle(name) {
    if (state.open === name) {
      close();
      return;
    }
    state.open = name;
    state.row = name;
    place();
    byKey("panel")?.focus({ preventScroll: true });
    byKey("panel")?.scrollIntoView({ block: "nearest" });
  }

  function close() {
    const name = state.open;
    state.open = null;
    place();
    if (name) byKey(state.tiles ? `tile:${name}` : name)?.focus({ preventScroll: true });
  }

  function focused() {
    const at = root.contains(document.activeElement) ? document.activeElement : null;
    return at?.getAttribute("data-key") ?? null;
  }

  /** @param {string} name @returns {HTMLElement | undefined} */
  function byKey(name) {
    const keyed = /** @type {HTMLElement[]} */ ([...root.querySelectorAll("[data-key]")]);
    return keyed.find((made) => made.getAttribute("data-key") === name);
  }

  // --- the slice that is pointed at, and those that are chosen ---

  function point() {
    const slices = shown.timeline?.pieces.length ?? 1;
    const { at, range } = state;
    cursor.hidden = spot.hidden = at === null || !shown.timeline;
    before.hidden = after.hidden = range === null;
    // On these alone: what inherits a property is styled anew with each step of the pointer.
    for (const made of [cursor, spot]) {
      made.style.setProperty("--nbm-from", String((at ?? 0) / slices));
      made.style.setProperty("--nbm-slice", String(1 / slices));
    }
    before.style.setProperty("--nbm-to", String((range?.[0] ?? 0) / slices));
    after.style.setProperty("--nbm-from", String(((range?.[1] ?? slices - 1) + 1) / slices));
  }

  /** Say what is found where a lane is pointed at, beside it. @param {Element | null} lane */
  function tell(lane) {
    const { timeline } = shown;
    const piece = timeline && state.at !== null ? timeline.pieces[state.at] : undefined;
    if (!lane || !piece || !timeline || state.at === null) {
      tip.replaceChildren();
      spot.remove();
      return;
    }
    const made = lane.closest(".nbm-track");
    const row = timeline.rows.find((one) => keyOf(one) === made?.getAttribute("data-row"));
    const chart = timeline.charts.find((one) => one.name === made?.getAttribute("data-chart"));
    let lines = [piece.verdict === "ok" ? "ok" : piece.verdict, pieceTold(piece)];
    if (row) lines = cellTold(row, piece, state.at);
    else if (chart) lines = chartTold(chart, piece, state.at);
    tip.replaceChildren(...lines.map((line) => element("span", {}, clipped(line, 200))));
    lane.append(spot);
    const [box, whole] = [lane.getBoundingClientRect(), stage.getBoundingClientRect()];
    const middle = box.left - whole.left + ((state.at + 0.5) / timeline.pieces.length) * box.width;
    const left = Math.min(Math.max(0, middle - tip.offsetWidth / 2), whole.width - tip.offsetWidth);
    tip.style.left = `${Math.max(0, left)}px`;
    tip.style.top = `${box.bottom - whole.top + 6}px`;
  }

  /** @param {Stretch | null} stretch */
  function rangeOf(stretch) {
    const pieces = shown.timeline?.pieces ?? [];
    if (!stretch) return null;
    const [since, until] = [Date.parse(stretch.since), Date.parse(stretch.until)];
    const inside = pieces.flatMap((piece, index) =>
      Date.parse(piece.since) >= since && Date.parse(piece.until) <= until ? [index] : [],
    );
    return inside.length ? /** @type {[number, number]} */ ([inside[0], inside[inside.length - 1]]) : null;
  }

  /** @returns {Stretch | null} */
  function stretch() {
    const pieces = shown.timeline?.pieces;
    if (!state.range || !pieces) return null;
    return { since: pieces[state.range[0]].since, until: pieces[state.range[1]].until };
  }

  /** @param {[number, number] | null} range @param {number} [after] */
  function choose(range, after = 0) {
    state.range = range;
    point();
    hooks();
    clearTimeout(settling);
    settling = setTimeout(send, after);
  }

  function send() {
    settling = undefined;
    const next = stretch();
    if (JSON.stringify(next) === JSON.stringify(model.get("selection") ?? null)) return;
    model.set("selection", next);
    model.save_changes();
    hooks();
  }

  /** Say which slices are chosen, and whether the answers above are of them. */
  function hooks() {
    /** @type {Partial<Hooks>} */
    const told = model.get("hooks") ?? {};
    problem.textContent = told.problem ?? "";
    problem.hidden = !told.problem;
    following.hidden = !told.refreshable;
    const pieces = shown.timeline?.pieces ?? [];
    every.hidden = state.range === null;
    if (!state.range) {
      chosen.textContent = "Drag along the times to choose a window.";
    } else {
      const [from, to] = state.range;
      const part = pieces.slice(from, to + 1);
      const rows = part.reduce((sum, piece) => sum + piece.rows, 0);
      const alerts = part.filter((piece) => piece.verdict === "alert").length;
      const words = [
        span(part[0].since, part[part.length - 1].until),
        `${part.length} of ${pieces.length} slices`,
        `${rows.toLocaleString("en")} rows`,
        `${alerts} with an alert`,
      ];
      const wanted = rangeOf(told.selected ?? null);
      if (told.selectable && !told.problem && String(wanted) !== String(state.range)) {
        words.push("waiting for the kernel, the answers are of another window");
      }
      chosen.textContent = words.join(" · ");
    }
    refresh.setAttribute("aria-busy", String(asked));
  }

  // --- events ---

  /** @param {Element} lane @param {number} x */
  function sliceAt(lane, x) {
    const box = lane.getBoundingClientRect();
    const slices = shown.timeline?.pieces.length ?? 1;
    return Math.min(slices - 1, Math.max(0, Math.floor(((x - box.left) / box.width) * slices)));
  }

  /** @param {Event} event */
  const laneOf = (event) => /** @type {Element} */ (event.target).closest(".nbm-lane");

  stage.addEventListener("pointerdown", (event) => {
    const lane = laneOf(event);
    if (!lane || event.button !== 0) return;
    drag = { from: sliceAt(lane, event.clientX), x: event.clientX, lane, moved: false };
  });
  stage.addEventListener("pointermove", (event) => {
    const lane = drag?.lane ?? laneOf(event);
    if (lane) {
      const at = sliceAt(lane, event.clientX);
      if (drag && (drag.moved || Math.abs(event.clientX - drag.x) > 4)) {
        if (!drag.moved) lane.setPointerCapture(event.pointerId);
        drag.moved = true;
        state.range = [Math.min(drag.from, at), Math.max(drag.from, at)];
        hooks();
      }
      state.at = at;
    } else if (focused() === null) {
      state.at = null;
    }
    point();
    tell(lane);
  });
  stage.addEventListener("pointerup", (event) => {
    const [done, lane] = [drag, laneOf(event)];
    drag = null;
    if (!done || !lane) return;
    const row = done.lane.closest("[data-row]")?.getAttribute("data-row");
    if (done.moved) choose(state.range);
    else if (row) toggle(row);
    else if (done.lane.getAttribute("data-key") === "axis") choose([done.from, done.from]);
    if (waiting) draw();
    waiting = false;
  });
  stage.addEventListener("pointercancel", () => {
    drag = null;
    state.range = rangeOf(model.get("selection"));
    point();
    hooks();
  });
  stage.addEventListener("pointerleave", () => {
    if (drag) return;
    state.at = null;
    point();
    tell(null);
  });
  stage.addEventListener("focusout", () => tell(null));
  stage.addEventListener("click", (event) => {
    const made = /** @type {Element} */ (event.target).closest(".nbm-feature, .nbm-tile");
    const name = made?.closest("[data-row]")?.getAttribute("data-row");
    if (name) toggle(name);
  });

  root.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.target === filter) return;
    if (state.open !== null) close();
    else if (state.range) choose(null);
    else return;
    event.stopPropagation();
  });
  stage.addEventListener("keydown", (event) => {
    const made = /** @type {HTMLElement} */ (event.target);
    const lane = made.classList.contains("nbm-lane") ? made : made.parentElement?.querySelector(".nbm-lane");
    if (!lane || !(made === lane || made.classList.contains("nbm-feature"))) return;
    const slices = shown.timeline?.pieces.length ?? 0;
    const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -slices, End: slices };
    const by = moves[/** @type {keyof typeof moves} */ (event.key)];
    if (by) walk(lane, by, event.shiftKey);
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") step(made, event.key === "ArrowDown" ? 1 : -1);
    else if (event.key === "Enter" && made.getAttribute("data-key") === "axis" && state.at !== null) choose([state.at, state.at]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  /** @param {Element} lane @param {number} by @param {boolean} choosing */
  function walk(lane, by, choosing) {
    const slices = shown.timeline?.pieces.length ?? 0;
    const before = state.at ?? (by > 0 ? -1 : slices);
    const at = Math.min(slices - 1, Math.max(0, before + by));
    if (choosing) {
      const held = Math.min(slices - 1, Math.max(0, before));
      const [from, to] = state.range ?? [held, held];
      // The end that stands where the cursor was goes with it.
      const other = held === from ? to : from;
      choose([Math.min(other, at), Math.max(other, at)], SETTLED_MS);
    }
    state.at = at;
    point();
    tell(lane);
  }

  /** @param {HTMLElement} made @param {number} by */
  function step(made, by) {
    const stops = /** @type {HTMLElement[]} */ ([
      ...stage.querySelectorAll(".nbm-times:not([hidden]) .nbm-lane, .nbm-heat:not([hidden]) .nbm-feature, .nbm-chart .nbm-lane"),
    ]).filter((one) => one.offsetParent !== null);
    const next = stops[stops.indexOf(made) + by];
    if (!next) return;
    const row = next.closest("[data-row]")?.getAttribute("data-row");
    if (row) state.row = row;
    for (const one of heat.querySelectorAll(".nbm-feature")) {
      if (row) one.setAttribute("tabindex", one === next ? "0" : "-1");
    }
    next.focus();
    tell(next.classList.contains("nbm-lane") ? next : next.parentElement?.querySelector(".nbm-lane") ?? null);
  }

  filter.addEventListener("input", place);
  every.addEventListener("click", () => {
    choose(null);
    byKey("axis")?.focus({ preventScroll: true });
  });
  more.addEventListener("click", () => {
    state.all = !state.all;
    place();
  });
  for (const [button, tiles] of /** @type {const} */ ([[overTime, false], [distributions, true]])) {
    button.addEventListener("click", () => {
      state.tiles = tiles;
      place();
    });
  }

  // --- what comes from the kernel ---

  let waiting = false;
  function ask() {
    asked = true;
    model.set("asked", (model.get("asked") ?? 0) + 1);
    model.save_changes();
    hooks();
  }
  function redraw() {
    // What one drags along is not to be drawn anew below the pointer.
    if (drag?.moved) waiting = true;
    else draw();
  }
  function told() {
    asked = (model.get("hooks")?.answered ?? 0) < (model.get("asked") ?? 0);
    hooks();
  }
  function selected() {
    if (drag || settling) return;
    state.range = rangeOf(model.get("selection") ?? null);
    point();
    hooks();
  }
  refresh.addEventListener("click", ask);
  const poll = setInterval(() => {
    const inSight = !document.hidden && root.isConnected && root.offsetParent !== null;
    if (live.checked && inSight && !asked) ask();
  }, EVERY_MS);
  state.range = rangeOf(model.get("selection") ?? null);
  draw();
  /** @type {[string, () => void][]} */
  const listeners = [["change:document", redraw], ["change:hooks", told], ["change:selection", selected]];
  for (const [event, listener] of listeners) model.on(event, listener);
  return () => {
    clearInterval(poll);
    clearTimeout(settling);
    for (const [event, listener] of listeners) model.off(event, listener);
  };
}

export default { render };
