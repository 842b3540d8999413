// @ts-check
/** The parts of the live view that stay: what is drawn anew is drawn inside them. */

import { heading } from "./overview.js";
import { element, keepKeys } from "./shared.js";

const WAYS =
  "Drift by feature over time. The arrow keys move, Enter opens a feature, with Shift they choose slices.";

/** @param {string} words @param {Record<string, string>} [more] */
function button(words, more = {}) {
  return element("button", { type: "button", ...more }, words);
}

/** Make the parts of the view and put them together. */
function frame() {
  const top = element("div");
  const table = element("div");
  const problem = element("p", { class: "nbm-problem", role: "alert" });
  const tools = toolbar();
  const chosen = element("span", { class: "nbm-facts", role: "status" });
  const every = button("All", { class: "nbm-close", "data-key": "all" });
  const choice = element("div", { class: "nbm-choice" }, chosen, every);
  const scale = element("div");
  const times = element("div");
  const heat = element("div", { class: "nbm-rows", role: "group", "aria-label": WAYS });
  const grid = element("div", { class: "nbm-grid" });
  const none = element("p", { class: "nbm-none", role: "status" });
  const more = button("", { class: "nbm-close nbm-more" });
  const charts = element("div");
  // One of each over all lanes, whose number may be large.
  const before = element("i", { class: "nbm-veil nbm-before" });
  const after = element("i", { class: "nbm-veil nbm-after" });
  const cursor = element("i", { class: "nbm-cursor" });
  const spot = element("i", { class: "nbm-spot" });
  const drawn = [times, heat, grid, none, more, charts, before, after, cursor];
  const lanes = element("div", { class: "nbm-lanes" }, ...drawn);
  const tip = element("div", { class: "nbm-tip", role: "status" });
  const stage = element("div", { class: "nbm-stage" }, choice, scale, lanes, tip);
  const root = element("div", { class: "nbm-drift" });
  keepKeys(root);
  root.append(top, problem, table, tools.bar, stage);
  const marks = { before, after, cursor, spot, tip, stage };
  return { root, top, table, problem, chosen, every, choice, scale, times, heat, grid, none, more, charts, ...tools, ...marks };
}

function toolbar() {
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
  const overTime = button("Over time");
  const distributions = button("Distributions");
  const tabs = element("span", { class: "nbm-tabs", role: "group", "aria-label": "Features" }, overTime, distributions);
  const refresh = button("Refresh", { class: "nbm-close", "data-key": "refresh" });
  const live = /** @type {HTMLInputElement} */ (element("input", { type: "checkbox" }));
  const following = element("span", { class: "nbm-follow" }, refresh, element("label", {}, live, " live"));
  const bar = element("div", { class: "nbm-bar" }, count, tabs, sides, filter, following);
  return { bar, filter, count, sides, tabs, overTime, distributions, refresh, live, following };
}

export { frame };
