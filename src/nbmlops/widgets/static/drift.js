// @ts-check
/**
 * The live view of a monitoring report. Everything that comes from data becomes a text node or an
 * attribute of the picture's geometry, never markup.
 *
 * @typedef {import("./distributions.js").Column} Column
 * @typedef {import("./pointing.js").Stretch} Stretch
 * @typedef {import("./overview.js").Document} Document
 * @typedef {{ selectable: boolean, refreshable: boolean, selected: Stretch | null,
 *   problem: string | null, answered: number }} Hooks
 * @typedef {{ get(name: string): any, set(name: string, value: unknown): void,
 *   save_changes(): void, on(event: string, listener: () => void): void,
 *   off(event: string, listener: () => void): void }} Model
 */

import { detail, tile } from "./features.js";
import { frame } from "./frame.js";
import { heading, metrics, overview } from "./overview.js";
import { chosenTold, mark, rangeOf, sliceAt, stretchOf, tell } from "./pointing.js";
import { axis, chartRow, effectChart, heatRow, keyOf, legend } from "./timeline.js";

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

  const parts = frame();
  const { root, stage, filter, heat, grid, every, more, refresh, live } = parts;
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
    const chosen = stretchOf(pieces(), state.range);
    shown = model.get("document");
    const { timeline, report } = shown;
    // Slices are counted from the first that is there: time goes on, and so do the numbers.
    state.range = rangeOf(pieces(), chosen);
    if (state.at !== null && state.at >= pieces().length) state.at = null;
    renew(parts.top, [report.verdict, shown.title, shown.facts, shown.why, report.questions], () => overview(shown));
    renew(parts.table, [shown.metrics, shown.traffic], () => metrics(shown));
    const drifted = report.columns.filter((column) => column.verdict === "drift").length;
    parts.count.textContent = `${report.columns.length} features, ${drifted} drifted`;
    const all = [...columns()];
    renew(grid, [report.columns, report.prediction], () => all.map(([name, column]) => tile(column, name, id)));
    renew(parts.scale, [shown.levels, timeline !== null], () => (timeline ? [legend(shown.levels)] : []));
    renew(parts.times, [timeline?.ticks, timeline?.pieces], () => (timeline ? [axis(timeline)] : []));
    renew(heat, timeline?.rows, () => (timeline?.rows ?? []).map((row) => heatRow(row, id)));
    renew(parts.charts, [timeline?.charts, timeline?.pieces.length], drawCharts);
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

  /** Without a history there is one view of the features alone. */
  const inTiles = () => state.tiles || !shown.timeline;

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
    const current = inTiles() ? tiles.filter((made) => !made.hidden) : [...kept];
    parts.none.textContent = current.length || !(inTiles() ? tiles : rows).length ? "" : "No feature has that in its name.";
    more.hidden = inTiles() || fitting.length <= ROWS;
    more.textContent = state.all ? "Show fewer" : `Show all ${fitting.length} rows`;
    grid.hidden = !inTiles();
    parts.sides.hidden = !inTiles();
    parts.scale.hidden = heat.hidden = inTiles();
    parts.tabs.hidden = parts.times.hidden = parts.choice.hidden = !timeline;
    parts.overTime.setAttribute("aria-pressed", String(!inTiles()));
    parts.distributions.setAttribute("aria-pressed", String(inTiles()));
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
    if (name) byKey(inTiles() ? `tile:${name}` : name)?.focus({ preventScroll: true });
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

  const pieces = () => shown.timeline?.pieces ?? [];
  function point() {
    mark(parts, { slices: pieces().length, at: state.at, range: state.range });
  }

  /** @param {Element | null} lane */
  const say = (lane) => tell(parts, shown.timeline, state.at, lane);

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
    const next = stretchOf(pieces(), state.range);
    if (JSON.stringify(next) === JSON.stringify(model.get("selection") ?? null)) return;
    model.set("selection", next);
    model.save_changes();
    hooks();
  }

  /** Say which slices are chosen, and whether the answers above are of them. */
  function hooks() {
    /** @type {Partial<Hooks>} */
    const told = model.get("hooks") ?? {};
    /** @type {Stretch | null} */
    const wanted = model.get("selection") ?? null;
    parts.problem.textContent = told.problem ?? "";
    parts.problem.hidden = !told.problem;
    parts.following.hidden = !told.refreshable;
    every.hidden = state.range === null && wanted === null;
    const words = chosenTold(pieces(), state.range, wanted);
    const answered = rangeOf(pieces(), told.selected ?? null);
    if (told.selectable && !told.problem && String(answered) !== String(state.range)) {
      words.push("waiting for the kernel, the answers are of another window");
    }
    parts.chosen.textContent = words.join(" · ");
    refresh.setAttribute("aria-busy", String(asked));
  }

  // --- events ---

  /** @param {Event} event */
  const laneOf = (event) => /** @type {Element} */ (event.target).closest(".nbm-lane");

  stage.addEventListener("pointerdown", (event) => {
    const lane = laneOf(event);
    if (!lane || event.button !== 0) return;
    drag = { from: sliceAt(lane, event.clientX, pieces().length), x: event.clientX, lane, moved: false };
  });
  stage.addEventListener("pointermove", (event) => {
    const lane = drag?.lane ?? laneOf(event);
    if (lane) {
      const at = sliceAt(lane, event.clientX, pieces().length);
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
    say(lane);
  });
  stage.addEventListener("pointerup", (event) => {
    const done = drag;
    drag = null;
    const row = done?.lane.closest("[data-row]")?.getAttribute("data-row");
    if (done?.moved) choose(state.range);
    else if (done?.lane !== laneOf(event)) return;
    else if (row) toggle(row);
    else if (done?.lane.getAttribute("data-key") === "axis") choose([done.from, done.from]);
    if (waiting) draw();
    waiting = false;
  });
  stage.addEventListener("pointercancel", () => {
    drag = null;
    state.range = rangeOf(pieces(), model.get("selection"));
    point();
    hooks();
  });
  stage.addEventListener("pointerleave", () => {
    if (drag) return;
    state.at = null;
    point();
    say(null);
  });
  stage.addEventListener("focusout", () => say(null));
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
    const slices = pieces().length;
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
    const slices = pieces().length;
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
    say(lane);
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
    say(next.classList.contains("nbm-lane") ? next : next.parentElement?.querySelector(".nbm-lane") ?? null);
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
  for (const [button, tiles] of /** @type {const} */ ([[parts.overTime, false], [parts.distributions, true]])) {
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
    state.range = rangeOf(pieces(), model.get("selection") ?? null);
    point();
    hooks();
  }
  refresh.addEventListener("click", ask);
  const poll = setInterval(() => {
    const inSight = !document.hidden && root.isConnected && root.offsetParent !== null;
    if (live.checked && inSight && !asked) ask();
  }, EVERY_MS);
  state.range = rangeOf(pieces(), model.get("selection") ?? null);
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
