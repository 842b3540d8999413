// @ts-check
/**
 * The live view of a monitoring report. Everything that comes from data becomes a text node or an
 * attribute of the picture's geometry, never markup.
 *
 * @typedef {{ name: string, value: number | null, threshold: number }} Effect
 * @typedef {{ edges: number[] | null, labels: string[] | null, reference: number[],
 *   window: number[] }} Distribution
 * @typedef {{ name: string, kind: string, verdict: "ok" | "drift" | "unknown", reason: string,
 *   effect: Effect | null, p_value: number | null, missing_share: number | null,
 *   new_categories: string[], distribution: Distribution | null }} Column
 * @typedef {{ answer: "yes" | "no" | "unknown", reason: string }} Answer
 * @typedef {{ verdict: "ok" | "alert" | "unknown", questions: Record<string, Answer>,
 *   columns: Column[], prediction: Column | null }} Report
 * @typedef {{ report: Report, title: string, facts: string[],
 *   questions: { name: string, asked: string }[] }} Document
 * @typedef {{ get(name: "document"): Document, on(event: string, listener: () => void): void,
 *   off(event: string, listener: () => void): void }} Model
 */

import { clipped, element, shape } from "./shared.js";

const MARKS = { ok: "✓", yes: "✓", alert: "✕", no: "✕", drift: "✕", unknown: "?" };
let views = 0;

/** @param {number | null | undefined} value */
function figure(value) {
  return value == null ? "-" : value.toFixed(2);
}

/** @param {number | null} value */
function probability(value) {
  if (value === null) return "-";
  return value < 0.0001 ? "<0.0001" : String(Number(value.toPrecision(2)));
}

/** @param {number | null} value */
function percent(value) {
  if (value === null) return "-";
  if (value > 0 && value < 0.001) return "<0.1%";
  return value === 0 ? "0%" : `${(100 * value).toFixed(1)}%`;
}

/** @param {number} value */
function short(value) {
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e5 || size < 1e-3)) return value.toExponential(1);
  return String(Number(value.toPrecision(4)));
}

/** @param {string} state */
function badge(state) {
  const mark = MARKS[/** @type {keyof typeof MARKS} */ (state)] ?? "";
  return element("span", { class: "nbm-badge", "data-state": state }, `${mark} ${state}`);
}

/**
 * Draw both distributions: training wide and behind, the window narrow and in front.
 *
 * @param {Column} column
 * @param {{ width: number, height: number, detailed: boolean }} size
 * @returns {Node}
 */
function picture(column, size) {
  const drawn = column.distribution;
  if (!drawn || drawn.reference.length === 0) {
    return element("p", { class: "nbm-none" }, "no values to draw");
  }
  return drawn.labels ? rows(column, drawn, drawn.labels, size) : histogram(column, drawn, size);
}

/**
 * @param {Column} column
 * @param {Distribution} drawn
 * @param {{ width: number, height: number, detailed: boolean }} size
 */
function histogram(column, drawn, { width, height, detailed }) {
  const foot = 14;
  const plot = height - foot;
  const top = Math.max(...drawn.reference, ...drawn.window) || 1;
  const step = width / drawn.reference.length;
  const edges = drawn.edges ?? [];
  const svg = canvas(column, width, height);
  for (const [side, inset] of /** @type {const} */ ([["reference", 0.04], ["window", 0.26]])) {
    const group = shape("g", { "data-side": side });
    drawn[side].forEach((share, index) => {
      if (share <= 0) return;
      const bar = shape("rect", {
        x: (index + inset) * step,
        width: (1 - 2 * inset) * step,
        y: plot * (1 - share / top),
        height: (plot * share) / top,
      });
      const what = side === "reference" ? "training" : "window";
      const reach = `${short(edges[index])} to ${short(edges[index + 1])}`;
      bar.append(shape("title", {}, `${reach}: ${what} ${percent(share)}`));
      group.append(bar);
    });
    svg.append(group);
  }
  svg.append(shape("line", { class: "nbm-base", x1: 0, x2: width, y1: plot, y2: plot }));
  const stops = detailed ? 5 : 2;
  for (let stop = 0; stop < stops; stop += 1) {
    const index = Math.round((stop * (edges.length - 1)) / (stops - 1));
    const anchor = stop === 0 ? "start" : stop === stops - 1 ? "end" : "middle";
    const place = { x: index * step, y: height - 2, "text-anchor": anchor };
    svg.append(shape("text", place, short(edges[index])));
  }
  return svg;
}

/**
 * @param {Column} column
 * @param {Distribution} drawn
 * @param {string[]} labels
 * @param {{ width: number, height: number, detailed: boolean }} size
 */
function rows(column, drawn, labels, { width, height, detailed }) {
  const shown = pick(drawn, detailed ? labels.length : 4);
  const line = detailed ? 18 : height / 4;
  const gutter = width * (detailed ? 0.3 : 0.42);
  const top = Math.max(...drawn.reference, ...drawn.window) || 1;
  const svg = canvas(column, width, detailed ? shown.length * line : height);
  shown.forEach((index, place) => {
    const y = place * line;
    const limit = detailed ? 34 : 13;
    const name = shape("text", { x: 0, y: y + line * 0.68 }, clipped(labels[index], limit));
    name.append(shape("title", {}, labels[index]));
    svg.append(name);
    for (const [side, inset] of /** @type {const} */ ([["reference", 0.1], ["window", 0.3]])) {
      const share = drawn[side][index];
      const bar = shape("rect", {
        x: gutter,
        y: y + inset * line,
        width: ((width - gutter) * share) / top,
        height: (1 - 2 * inset) * line,
      });
      const what = side === "reference" ? "training" : "window";
      bar.append(shape("title", {}, `${labels[index]}: ${what} ${percent(share)}`));
      svg.append(shape("g", { "data-side": side }, bar));
    }
  });
  return svg;
}

/**
 * Return which categories to show where there is no room for all: those that differ most.
 *
 * @param {Distribution} drawn
 * @param {number} count
 * @returns {number[]}
 */
function pick(drawn, count) {
  const apart = drawn.reference.map((share, index) => Math.abs(share - drawn.window[index]));
  const all = drawn.reference.map((_, index) => index);
  if (all.length <= count) return all;
  const weight = (/** @type {number} */ index) => apart[index] + 1e-3 * drawn.reference[index];
  return [...all].sort((a, b) => weight(b) - weight(a)).slice(0, count).sort((a, b) => a - b);
}

/** @param {Column} column @param {number} width @param {number} height */
function canvas(column, width, height) {
  return shape("svg", {
    viewBox: `0 0 ${width} ${height}`,
    width: "100%",
    role: "img",
    "aria-label": `training and window of ${column.name}`,
  });
}

/** Draw the size of a difference against its threshold, which stands at a third. @param {Effect} effect */
function gauge(effect) {
  const share = Math.min(1, (effect.value ?? 0) / (3 * effect.threshold));
  const bar = element("span");
  bar.style.width = `${100 * share}%`;
  const mark = element("i");
  mark.style.left = "33.3%";
  const title = `${figure(effect.value)}; the mark is the threshold, ${effect.threshold}`;
  return element("div", { class: "nbm-gauge", title }, bar, mark);
}

/** @param {Column} column */
function figures(column) {
  const value = column.effect
    ? `distance ${figure(column.effect.value)} / ${column.effect.threshold}`
    : "no distance";
  const line = element(
    "div",
    { class: "nbm-figures" },
    element("span", {}, value),
    element("span", {}, `p ${probability(column.p_value)}`),
  );
  const notes = ["label", "value"].includes(column.kind) ? ["what the model answers"] : [];
  if (column.missing_share) notes.push(`${percent(column.missing_share)} missing`);
  const fresh = column.new_categories.length;
  if (fresh) notes.push(fresh === 1 ? "1 new category" : `${fresh} new categories`);
  if (!notes.length) return [line];
  return [line, element("div", { class: "nbm-figures" }, notes.join(", "))];
}

/** @param {Column} column @param {string} id */
function tile(column, id) {
  return element(
    "button",
    {
      class: "nbm-tile",
      type: "button",
      "data-state": column.verdict,
      "aria-expanded": "false",
      "aria-controls": id,
      title: column.name,
    },
    element(
      "div",
      { class: "nbm-tilehead" },
      element("span", { class: "nbm-name" }, column.name),
      badge(column.verdict),
    ),
    picture(column, { width: 200, height: 64, detailed: false }),
    column.effect ? gauge(column.effect) : null,
    ...figures(column),
  );
}

/** @param {Column} column @param {string} id @param {() => void} close */
function detail(column, id, close) {
  const button = element("button", { class: "nbm-close", type: "button" }, "Close");
  button.addEventListener("click", close);
  const facts = [
    ["Finding", column.reason],
    ["Kind", column.kind],
    ["Difference", column.effect
      ? `${figure(column.effect.value)} (${column.effect.name.replaceAll("-", " ")}), `
        + `threshold ${column.effect.threshold}`
      : "-"],
    ["p-value", `${probability(column.p_value)}, adjusted for all columns`],
    ["Missing", percent(column.missing_share)],
  ];
  if (column.new_categories.length) {
    facts.push(["New categories", column.new_categories.join(", ")]);
  }
  const list = element("dl");
  for (const [term, value] of facts) {
    list.append(element("dt", {}, term), element("dd", {}, value));
  }
  const head = element(
    "div",
    { class: "nbm-tilehead" },
    element("span", { class: "nbm-name" }, column.name),
    button,
  );
  const panel = element(
    "div",
    { class: "nbm-detail", id, role: "region", "data-state": column.verdict, tabindex: "-1" },
    head,
    picture(column, { width: 640, height: 180, detailed: true }),
    list,
  );
  panel.setAttribute("aria-label", column.name);
  return panel;
}

/** @param {Document} shown */
function head(shown) {
  return element(
    "div",
    { class: "nbm-head" },
    element(
      "p",
      { class: "nbm-title", role: "heading", "aria-level": "3" },
      badge(shown.report.verdict),
      element("strong", {}, shown.title),
    ),
    element("p", { class: "nbm-facts" }, shown.facts.join(" · ")),
  );
}

/** @param {Document} shown */
function cards(shown) {
  const list = element("ul", { class: "nbm-cards" });
  for (const { name, asked } of shown.questions) {
    const { answer, reason } = shown.report.questions[name];
    list.append(
      element(
        "li",
        { class: "nbm-card", "data-state": answer },
        element("span", { class: "nbm-asked" }, asked),
        element("strong", { class: "nbm-answer" }, `${MARKS[answer]} ${answer}`),
        element("span", { class: "nbm-reason" }, reason),
      ),
    );
  }
  return list;
}

/** @param {Column[]} columns @param {HTMLElement} filter */
function bar(columns, filter) {
  const drifted = columns.filter((column) => column.verdict === "drift").length;
  const key = (/** @type {string} */ side) =>
    element("span", { class: "nbm-key", "data-side": side });
  return element(
    "div",
    { class: "nbm-bar" },
    element(
      "p",
      { class: "nbm-subtitle", role: "heading", "aria-level": "4" },
      `${columns.length} features, ${drifted} drifted`,
    ),
    element("span", { class: "nbm-legend" }, key("reference"), "training", key("window"), "window"),
    filter,
  );
}

/**
 * Lay out the tiles; one at a time opens in the row below it.
 *
 * @param {Column[]} columns
 * @param {HTMLInputElement} filter
 */
function grid(columns, filter) {
  const id = `nbm-detail-${(views += 1)}`;
  const none = element("p", { class: "nbm-none", role: "status" });
  const root = element("div", { class: "nbm-grid" });
  /** @type {{ tile: HTMLElement, panel: HTMLElement } | null} */
  let open = null;

  function close() {
    if (!open) return;
    open.panel.remove();
    open.tile.setAttribute("aria-expanded", "false");
    if (!open.tile.hidden) open.tile.focus();
    open = null;
  }

  const tiles = columns.map((column) => {
    const made = tile(column, id);
    made.addEventListener("click", () => {
      const again = open?.tile === made;
      close();
      if (again) return;
      const panel = detail(column, id, close);
      made.after(panel);
      made.setAttribute("aria-expanded", "true");
      open = { tile: made, panel };
      panel.focus();
    });
    return made;
  });

  filter.addEventListener("input", () => {
    const wanted = filter.value.trim().toLowerCase();
    columns.forEach((column, index) => {
      tiles[index].hidden = !column.name.toLowerCase().includes(wanted);
    });
    if (open?.tile.hidden) close();
    const found = tiles.some((made) => !made.hidden);
    none.textContent = found ? "" : "No feature has that in its name.";
  });
  root.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !open) return;
    event.stopPropagation();
    close();
  });
  root.append(...tiles, none);
  return root;
}

/** @param {HTMLElement} el @param {Document} shown */
function draw(el, shown) {
  const { columns, prediction } = shown.report;
  const filter = /** @type {HTMLInputElement} */ (
    element("input", {
      class: "nbm-filter",
      type: "search",
      placeholder: "Filter features",
      "aria-label": "Filter features by name",
    })
  );
  // The notebook's shortcuts are not meant for keys that are typed in here.
  const root = element("div", { class: "nbm-drift", "data-lm-suppress-shortcuts": "true" });
  root.append(head(shown), cards(shown), bar(columns, filter));
  root.append(grid(prediction ? [prediction, ...columns] : columns, filter));
  el.replaceChildren(root);
}

/** @param {{ model: Model, el: HTMLElement }} view */
function render({ model, el }) {
  const redraw = () => draw(el, model.get("document"));
  redraw();
  model.on("change:document", redraw);
  return () => model.off("change:document", redraw);
}

export default { render };
