// @ts-check
/**
 * The distributions of training and window over each other, small or in detail.
 *
 * @typedef {{ name: string, value: number | null, threshold: number, low: number | null,
 *   high: number | null }} Effect
 * @typedef {{ edges: number[] | null, labels: string[] | null, reference: number[],
 *   window: number[] }} Distribution
 * @typedef {{ name: string, kind: string, verdict: "ok" | "drift" | "unknown", reason: string,
 *   effect: Effect | null, p_value: number | null, missing_share: number | null,
 *   new_categories: string[], distribution: Distribution | null }} Column
 */

import { clipped, element, shape } from "./shared.js";

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

export { figure, percent, picture, probability, short };
