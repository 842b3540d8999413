// @ts-check
/**
 * The head of a monitoring report: the verdict, why, the four answers, the metrics.
 *
 * @typedef {import("./distributions.js").Column} Column
 * @typedef {import("./timeline.js").Timeline} Timeline
 * @typedef {{ answer: "yes" | "no" | "unknown", reason: string }} Answer
 * @typedef {{ verdict: "ok" | "alert" | "unknown", questions: Record<string, Answer>,
 *   columns: Column[], prediction: Column | null }} Report
 * @typedef {{ report: Report, title: string, facts: string[],
 *   questions: { name: string, asked: string }[], why: { text: string, strong: boolean }[],
 *   metrics: { heads: string[], rows: { cells: string[], worse: boolean }[] },
 *   traffic: string | null, levels: string[], timeline: Timeline | null }} Document
 */

import { MARKS, badge } from "./features.js";
import { element } from "./shared.js";

const MOMENT = /(\d{4}-\d\d-\d\d \d\d:\d\d(?: UTC)?)/;

/** @param {Document} shown */
function overview(shown) {
  return [
    element(
      "div",
      { class: "nbm-head" },
      element(
        "p",
        { class: "nbm-title", role: "heading", "aria-level": "3" },
        badge(shown.report.verdict),
        element("strong", {}, shown.title),
      ),
      element("p", { class: "nbm-facts" }, ...whole(shown.facts.join(" · "))),
    ),
    why(shown.why),
    cards(shown),
  ].filter((part) => part !== null);
}

/** @param {Document["why"]} parts */
function why(parts) {
  if (!parts.length) return null;
  const told = parts.flatMap(({ text, strong }) =>
    strong ? [element("strong", {}, ...whole(text))] : whole(text),
  );
  return element("p", { class: "nbm-why" }, ...told);
}

/** Keep times in one piece: a line may not end within one. @param {string} text */
function whole(text) {
  return text.split(MOMENT).map((part, index) =>
    index % 2 ? element("span", { class: "nbm-moment" }, part) : part,
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

/** @param {string} words */
function heading(words) {
  return element("p", { class: "nbm-subtitle", role: "heading", "aria-level": "4" }, words);
}

/** @param {Document} shown */
function metrics({ metrics: { heads, rows }, traffic }) {
  const flow = traffic === null ? [] : [element("p", { class: "nbm-facts nbm-flow" }, `Traffic: ${traffic}`)];
  if (!rows.length) return flow;
  const head = element("tr", {}, ...heads.map((name) => element("th", { scope: "col" }, name)));
  const body = rows.map(({ cells: [name, ...cells], worse }) =>
    element(
      "tr",
      { "data-state": worse ? "drift" : "ok" },
      element("th", { scope: "row" }, name),
      ...cells.map((cell) => element("td", {}, cell)),
    ),
  );
  const table = element(
    "table",
    { class: "nbm-table nbm-metrics" },
    element("thead", {}, head),
    element("tbody", {}, ...body),
  );
  const reach = { class: "nbm-wide", role: "region", tabindex: "0", "aria-label": "metrics", "data-key": "metrics" };
  return [heading("Metrics beside the test set"), element("div", reach, table), ...flow];
}

export { heading, metrics, overview };
