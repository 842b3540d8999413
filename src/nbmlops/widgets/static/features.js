// @ts-check
/**
 * The features of a monitoring report: a small picture of each, and one opened in full.
 *
 * @typedef {import("./distributions.js").Column} Column
 * @typedef {import("./distributions.js").Effect} Effect
 */

import { figure, percent, picture, probability } from "./distributions.js";
import { element } from "./shared.js";

const MARKS = { ok: "✓", yes: "✓", alert: "✕", no: "✕", drift: "✕", unknown: "?" };

/** @param {string} state */
function badge(state) {
  const mark = MARKS[/** @type {keyof typeof MARKS} */ (state)] ?? "";
  return element("span", { class: "nbm-badge", "data-state": state }, `${mark} ${state}`);
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

/** @param {Column} column @param {string} key @param {string} panel */
function tile(column, key, panel) {
  return element(
    "button",
    {
      class: "nbm-tile",
      type: "button",
      "data-state": column.verdict,
      "data-key": `tile:${key}`,
      "data-row": key,
      "aria-expanded": "false",
      "aria-controls": panel,
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

/** @param {Effect | null} effect */
function difference(effect) {
  if (!effect) return "-";
  const reach =
    effect.low === null || effect.high === null
      ? ""
      : `, from ${figure(effect.low)} to ${figure(effect.high)} with 98 % confidence`;
  return `${figure(effect.value)} (${effect.name.replaceAll("-", " ")})${reach}; threshold ${effect.threshold}`;
}

/** @param {Column} column @returns {[string, string][]} */
function facts(column) {
  /** @type {[string, string][]} */
  const told = [
    ["Finding", column.reason],
    ["Kind", column.kind],
    ["Difference", difference(column.effect)],
    ["p-value", `${probability(column.p_value)}, adjusted for all columns`],
    ["Missing", percent(column.missing_share)],
  ];
  if (column.new_categories.length) told.push(["New categories", column.new_categories.join(", ")]);
  return told;
}

/**
 * A feature in full: both distributions, what was found, and its difference over time.
 *
 * @param {Column} column
 * @param {{ id: string, room: number, past: Node | null, close: () => void }} place
 */
function detail(column, { id, room, past, close }) {
  const button = element("button", { class: "nbm-close", type: "button", "data-key": "close" }, "Close");
  button.addEventListener("click", close);
  const list = element("dl");
  for (const [term, value] of facts(column)) {
    list.append(element("dt", {}, term), element("dd", {}, value));
  }
  // Beside the facts where there is room for both: text in the picture is to keep its size.
  const width = room > 600 ? 0.6 * (room - 52) : room - 32;
  const panel = element(
    "div",
    {
      class: "nbm-detail",
      id,
      role: "region",
      "data-state": column.verdict,
      "data-key": "panel",
      tabindex: "-1",
      "aria-label": column.name,
    },
    element(
      "div",
      { class: "nbm-tilehead" },
      element("span", { class: "nbm-name" }, column.name),
      badge(column.verdict),
      button,
    ),
    element(
      "div",
      { class: "nbm-both" },
      picture(column, { width: Math.max(240, Math.min(600, width)), height: 170, detailed: true }),
      list,
    ),
    past,
  );
  return panel;
}

export { MARKS, badge, detail, tile };
