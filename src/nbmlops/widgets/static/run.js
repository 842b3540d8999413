// @ts-check
/**
 * The live card of a run. Everything that comes from data becomes a text node, never markup.
 *
 * @typedef {{ name: string, notebook: string, state: string, mark: string, word: string,
 *   told: string, done: number, total: number, share: number, since: string | null,
 *   took: string }} Step
 * @typedef {{ run_id: string, state: string, mark: string, now: string, ticking: boolean,
 *   since: string, took: string, facts: string[], steps: Step[],
 *   metrics: { name: string, value: string }[], note: string | null,
 *   cause: { code: string, message: string, place: string, hint: string | null } | null,
 *   models: string[], commands: { what: string, type: string }[], log: string[],
 *   artifacts: { name: string, size: string, digest: string }[] }} Document
 * @typedef {{ get(name: "document"): Document, on(event: string, listener: () => void): void,
 *   off(event: string, listener: () => void): void }} Model
 */

import { clock, element, head, keepKeys, length, next, reason } from "./shared.js";

/** @param {Step} step @param {boolean} ticking */
function row(step, ticking) {
  const filled = element("span");
  filled.style.width = `${100 * step.share}%`;
  return element(
    "li",
    { class: "nbm-step", "data-state": step.state },
    element("span", { class: "nbm-mark", "aria-hidden": "true" }, step.mark),
    element(
      "span",
      { class: "nbm-what", title: `${step.name} ${step.notebook}` },
      element("strong", {}, step.name),
      " ",
      element("span", { class: "nbm-where" }, step.notebook),
    ),
    element(
      "span",
      {
        class: "nbm-bar",
        role: "progressbar",
        "aria-label": `cells of ${step.name}`,
        "aria-valuemin": "0",
        "aria-valuemax": String(step.total),
        "aria-valuenow": String(step.done),
      },
      filled,
    ),
    element("span", { class: "nbm-told", title: step.told }, `${step.word}, ${step.told}`),
    clock(step.took, ticking ? step.since : null),
  );
}

/** @param {Document["metrics"]} metrics */
function figures(metrics) {
  if (!metrics.length) return null;
  const items = metrics.map(({ name, value }) =>
    element("li", {}, element("span", {}, name), " ", element("strong", {}, value)),
  );
  return element("ul", { class: "nbm-metrics", "aria-label": "metrics" }, ...items);
}

/** @param {number} count @param {string} what */
function counted(count, what) {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

/**
 * @param {string} name
 * @param {string} summary
 * @param {Set<string>} open
 * @param {HTMLElement} content
 */
function fold(name, summary, open, content) {
  const attributes = { "data-fold": name, ...(open.has(name) ? { open: "" } : {}) };
  return element("details", attributes, element("summary", {}, summary), content);
}

/** @param {string[]} lines @param {Set<string>} open */
function log(lines, open) {
  if (!lines.length) return null;
  const box = element("pre", { class: "nbm-log", tabindex: "0" }, lines.join("\n"));
  const made = fold("log", `Log, last ${counted(lines.length, "line")}`, open, box);
  const end = () => {
    box.scrollTop = box.scrollHeight;
  };
  made.addEventListener("toggle", end);
  requestAnimationFrame(end);
  return made;
}

/** @param {Document["artifacts"]} artifacts @param {Set<string>} open */
function files(artifacts, open) {
  if (!artifacts.length) return null;
  const rows = artifacts.map(({ name, size, digest }) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, name),
      element("td", {}, size),
      element("td", {}, element("code", {}, digest)),
    ),
  );
  const table = element("table", { class: "nbm-table" }, element("tbody", {}, ...rows));
  return fold("files", counted(artifacts.length, "artifact"), open, table);
}

/** @param {{ model: Model, el: HTMLElement }} view */
function render({ model, el }) {
  // The kernel's clock and the browser's need not agree.
  let ahead = 0;

  function tick() {
    for (const told of el.querySelectorAll("[data-since]")) {
      const since = Date.parse(told.getAttribute("data-since") ?? "");
      told.textContent = length((Date.now() - ahead - since) / 1000);
    }
  }

  function draw() {
    const shown = model.get("document");
    const folds = [...el.querySelectorAll("details[open]")];
    const open = new Set(folds.map((made) => made.getAttribute("data-fold") ?? ""));
    ahead = Date.now() - Date.parse(shown.now);
    const steps = shown.steps.map((step) => row(step, shown.ticking));
    const parts = [
      ...head(shown, shown.run_id),
      element("ol", { class: "nbm-steps" }, ...steps),
      figures(shown.metrics),
      reason(shown.cause),
      shown.note ? element("p", { class: "nbm-note" }, shown.note) : null,
      next(shown.commands),
      log(shown.log, open),
      files(shown.artifacts, open),
    ];
    const held = el.contains(document.activeElement)
      ? document.activeElement?.closest("[data-fold]")?.getAttribute("data-fold")
      : null;
    el.replaceChildren(element("div", { class: "nbm nbm-run", "data-state": shown.state }, ...parts));
    tick();
    const again = held ? el.querySelector(`[data-fold="${held}"] summary`) : null;
    /** @type {HTMLElement | null} */ (again)?.focus({ preventScroll: true });
  }

  keepKeys(el);
  draw();
  model.on("change:document", draw);
  const ticking = setInterval(tick, 1000);
  return () => {
    clearInterval(ticking);
    model.off("change:document", draw);
  };
}

export default { render };
