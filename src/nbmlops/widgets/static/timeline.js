// @ts-check
/**
 * What is drawn over time: the axis, the heat map's rows and the charts. Widths are in percent or
 * in slices, so that all fits any width and stands below the same times.
 *
 * @typedef {"ok" | "drift" | "unknown"} Verdict
 * @typedef {{ at: number, text: string }} Tick
 * @typedef {{ at: number, time: string, day: string, minor: boolean, again: boolean }} TimeTick
 * @typedef {{ since: string, until: string, label: string, rows: number,
 *   verdict: "ok" | "alert" | "unknown" }} Piece
 * @typedef {{ name: string, prediction: boolean, threshold: number | null,
 *   verdicts: (Verdict | null)[], levels: (number | null)[], effects: (number | null)[],
 *   told: string }} HeatRow
 * @typedef {{ index: number, at: number, low: number | null, high: number | null,
 *   text: string }} Point
 * @typedef {{ name: string, mark: "solid" | "hollow" | "bar", points: Point[] }} Series
 * @typedef {{ at: number, low: number, high: number, text: string }} Band
 * @typedef {{ name: string, kind: "performance" | "traffic", ticks: Tick[], series: Series[],
 *   keys: { mark: string, text: string }[], band: Band | null }} Chart
 * @typedef {{ pieces: Piece[], ticks: TimeTick[], rows: HeatRow[], charts: Chart[] }} Timeline
 */

import { figure, short } from "./distributions.js";
import { element, shape } from "./shared.js";

const AXIS_PX = 30;
const CELL_PX = 16;
const CHART_PX = 72;
const SMALL_FROM = 30;
/** @type {Record<string, string>} */
const MARKS = { solid: "●", hollow: "○", band: "▬", bar: "▮" };

/**
 * A row of the page: a name in the gutter, and a lane that runs with time.
 *
 * @param {Record<string, string>} attributes
 * @param {Node} gutter
 * @param {SVGElement} drawn
 * @param {Record<string, string>} [lane]
 */
function track(attributes, gutter, drawn, lane = {}) {
  return element(
    "div",
    { ...attributes, class: `nbm-track ${attributes.class ?? ""}`.trim() },
    gutter,
    element("div", { ...lane, class: "nbm-lane" }, drawn),
  );
}

/** @param {number} share */
function percents(share) {
  return `${(100 * share).toFixed(2)}%`;
}

// --- the axis -----------------------------------------------------------------------------------

/** @param {Timeline} shown */
function axis(shown) {
  const count = shown.pieces.length;
  const svg = shape("svg", { class: "nbm-axis", width: "100%", height: AXIS_PX, "aria-hidden": "true" });
  for (const tick of shown.ticks) {
    const kinds = ["nbm-tick", tick.minor ? "nbm-minor" : "", tick.again ? "nbm-again" : ""];
    const x = percents(tick.at);
    svg.append(
      shape(
        "g",
        { class: kinds.join(" ").trim() },
        shape("line", { x1: x, x2: x, y1: 2, y2: AXIS_PX }),
        shape("text", { x, dx: 4, y: 11 }, tick.time),
        shape("text", { class: "nbm-day", x, dx: 4, y: tick.time ? 23 : 14 }, tick.day),
      ),
    );
  }
  const verdicts = shape("g", { class: "nbm-verdicts" });
  shown.pieces.forEach((piece, index) => {
    const place = { x: percents(index / count), width: percents(1 / count), y: AXIS_PX - 4, height: 4 };
    verdicts.append(shape("rect", { ...place, "data-verdict": piece.verdict }));
  });
  svg.append(verdicts);
  const label =
    "Times: the arrow keys move over the slices, with Shift they choose some, Enter chooses one, "
    + "Escape goes back to all";
  const lane = { tabindex: "0", role: "group", "data-key": "axis", "aria-label": label };
  const gutter = element("span", { class: "nbm-gutter nbm-facts" }, "time in UTC");
  return track({ class: "nbm-times" }, gutter, svg, lane);
}

// --- the heat map -------------------------------------------------------------------------------

/** @param {HeatRow} row */
function keyOf(row) {
  return (row.prediction ? "prediction:" : "column:") + row.name;
}

/**
 * A feature over time; a run of equal levels is one rectangle, drift is a dot in each slice.
 *
 * @param {HeatRow} row
 * @param {string} panel
 */
function heatRow(row, panel) {
  const count = row.levels.length;
  const svg = shape("svg", {
    class: "nbm-cells",
    width: "100%",
    height: CELL_PX,
    viewBox: `0 0 ${count} 1`,
    preserveAspectRatio: "none",
    "aria-hidden": "true",
  });
  /** @type {Map<number, string>} */
  const runs = new Map();
  /** @type {Map<string, string>} */
  const dots = new Map();
  let strokes = "";
  let begin = 0;
  row.levels.forEach((level, index) => {
    if (row.verdicts[index] === "drift") {
      const tone = String(level ?? 0);
      dots.set(tone, `${dots.get(tone) ?? ""}M${index}.5 .5h0`);
    }
    if (level === null && row.verdicts[index] === "unknown") strokes += `M${index} 1l1 -1`;
    if (index + 1 < count && row.levels[index + 1] === level) return;
    if (level !== null) runs.set(level, `${runs.get(level) ?? ""}M${begin} 0H${index + 1}v1H${begin}z`);
    begin = index + 1;
  });
  for (const [level, d] of runs) svg.append(shape("path", { "data-level": level, d }));
  for (const [level, d] of dots) svg.append(shape("path", { class: "nbm-dots", "data-level": level, d }));
  if (strokes) svg.append(shape("path", { class: "nbm-strokes", d: strokes }));
  const now = row.verdicts.includes("drift") ? "drift" : "ok";
  const button = element(
    "button",
    {
      class: "nbm-gutter nbm-feature",
      type: "button",
      tabindex: "-1",
      title: row.name,
      "data-key": keyOf(row),
      "aria-label": `${row.prediction ? "prediction" : `feature ${row.name}`}: ${row.told}`,
      "aria-expanded": "false",
      "aria-controls": panel,
    },
    row.name,
  );
  return track({ class: "nbm-heat", "data-state": now, "data-row": keyOf(row) }, button, svg);
}

/** @param {string[]} levels */
function legend(levels) {
  /** @param {string} words @param {SVGElement[]} drawn */
  const swatch = (words, ...drawn) =>
    element(
      "span",
      { class: "nbm-swatch" },
      shape("svg", { width: 12, height: 12, "aria-hidden": "true" }, ...drawn),
      ` ${words}`,
    );
  return element(
    "p",
    { class: "nbm-legend nbm-levels" },
    "Difference in thresholds",
    ...levels.map((words, level) =>
      swatch(words, shape("rect", { "data-level": level, width: 12, height: 12 })),
    ),
    swatch("drift", shape("circle", { class: "nbm-dot", cx: 6, cy: 6, r: 2.5 })),
    swatch("not judged", shape("path", { class: "nbm-strokes", d: "M1 11L11 1" })),
  );
}

// --- charts -------------------------------------------------------------------------------------

/** A metric may have the name of a measure. @param {Chart} chart */
function chartKey(chart) {
  return `${chart.kind}:${chart.name}`;
}

/** @param {Chart} chart @param {number} count */
function chartRow(chart, count) {
  const keys = chart.keys.map(({ mark, text }) =>
    element(
      "span",
      { class: "nbm-told" },
      element("span", { class: "nbm-mark", "data-mark": mark, "aria-hidden": "true" }, MARKS[mark]),
      ` ${text}`,
    ),
  );
  const gutter = element(
    "div",
    { class: "nbm-gutter" },
    element("span", { class: "nbm-name", title: chart.name }, chart.name),
    ...keys,
  );
  const told = chart.keys.map((key) => key.text).join(", ");
  const lane = {
    tabindex: "0",
    role: "group",
    "data-key": chartKey(chart),
    "aria-label": `${chart.name} over time: ${told}`,
  };
  return track({ class: "nbm-chart", "data-chart": chartKey(chart) }, gutter, plot(chart, count), lane);
}

/** @param {Chart} chart @param {number} count */
function plot(chart, count) {
  const svg = shape("svg", { class: "nbm-plot", width: "100%", height: CHART_PX, "aria-hidden": "true" });
  for (const { at, text } of chart.ticks) {
    const y = percents(1 - at);
    svg.append(
      shape("line", { class: "nbm-rule", x2: "100%", y1: y, y2: y }),
      shape("text", { x: -6, y, dy: 3, "text-anchor": "end" }, text),
    );
  }
  if (chart.band) {
    const { at, low, high } = chart.band;
    const y = percents(1 - at);
    svg.append(
      shape("rect", { class: "nbm-band", width: "100%", y: percents(1 - high), height: percents(high - low) }),
      shape("line", { class: "nbm-test", x2: "100%", y1: y, y2: y }),
    );
  }
  svg.append(...chart.series.map((series) => drawSeries(series, count)));
  return svg;
}

/** @param {Series} series @param {number} count */
function drawSeries({ mark, points }, count) {
  const group = shape("g", { "data-mark": mark });
  const across = (/** @type {number} */ index) => percents((index + 0.5) / count);
  const up = (/** @type {number} */ at) => percents(1 - at);
  if (mark === "bar") {
    for (const { index, at } of points) {
      const x = percents((index + 0.1) / count);
      group.append(shape("rect", { x, width: percents(0.8 / count), y: up(at), height: percents(at) }));
    }
    return group;
  }
  for (const { index, low, high } of mark === "solid" ? points : []) {
    if (low === null || high === null) continue;
    const x = across(index);
    group.append(shape("line", { class: "nbm-reach", x1: x, x2: x, y1: up(low), y2: up(high) }));
  }
  points.forEach((point, place) => {
    const last = points[place - 1];
    if (!last || last.index + 1 !== point.index) return;
    const ends = { x1: across(last.index), y1: up(last.at), x2: across(point.index), y2: up(point.at) };
    group.append(shape("line", ends));
  });
  const r = count <= SMALL_FROM ? 2.5 : 2;
  for (const { index, at } of points) group.append(shape("circle", { cx: across(index), cy: up(at), r }));
  return group;
}

/**
 * A feature's difference over time, with its threshold.
 *
 * @param {HeatRow} row
 * @param {Piece[]} pieces
 */
function effectChart(row, pieces) {
  const count = pieces.length;
  const threshold = row.threshold;
  const known = row.effects.flatMap((effect) => (effect === null ? [] : [effect]));
  if (!known.length) return null;
  const top = 1.1 * Math.max(...known, 1.2 * (threshold ?? 0), 1e-9);
  const svg = shape("svg", {
    class: "nbm-plot",
    width: "100%",
    height: 64,
    role: "img",
    "aria-label": `difference of ${row.name} over time: ${row.told}`,
  });
  row.effects.forEach((effect, index) => {
    if (effect === null) return;
    const bar = shape("rect", {
      x: percents((index + 0.1) / count),
      width: percents(0.8 / count),
      y: percents(1 - effect / top),
      height: percents(effect / top),
      "data-verdict": row.verdicts[index] ?? "unknown",
    });
    bar.append(shape("title", {}, cellTold(row, pieces[index], index).join("\n")));
    svg.append(bar);
  });
  if (threshold) {
    const y = percents(1 - threshold / top);
    svg.append(
      shape("line", { class: "nbm-limit", x2: "100%", y1: y, y2: y }),
      shape("text", { x: 4, y, dy: -4 }, `threshold ${short(threshold)}`),
    );
  }
  return element(
    "div",
    { class: "nbm-past" },
    element("p", { class: "nbm-facts" }, `difference over time: ${row.told}`),
    svg,
    element(
      "p",
      { class: "nbm-ends" },
      element("span", {}, stamp(pieces[0].since)),
      element("span", {}, `${stamp(pieces[count - 1].until)} UTC`),
    ),
  );
}

// --- one slice in words -------------------------------------------------------------------------

/** @param {HeatRow} row @param {Piece} piece @param {number} index */
function cellTold(row, piece, index) {
  const verdict = row.verdicts[index];
  const effect = row.effects[index];
  const size =
    effect === null ? "" : `, difference ${figure(effect)}${row.threshold ? `, threshold ${short(row.threshold)}` : ""}`;
  return [
    `${row.name}: ${verdict === null ? "nothing known" : verdict === "unknown" ? "not judged" : verdict}${size}`,
    pieceTold(piece),
  ];
}

/** @param {Chart} chart @param {Piece} piece @param {number} index */
function chartTold(chart, piece, index) {
  const values = [...chart.series].reverse().flatMap((series) => {
    const point = series.points.find((one) => one.index === index);
    const name = series.name === chart.name ? "" : `${series.name} `;
    return point ? [`${name}${point.text}`] : [];
  });
  return [`${chart.name}: ${values.join(", ") || "no value"}`, pieceTold(piece)];
}

/** A time in UTC to the minute. @param {string} iso */
function stamp(iso) {
  return new Date(iso).toISOString().slice(0, "2026-11-19T09:30".length).replace("T", " ");
}

/** The time of some slices, the day once where it is one. @param {string} since @param {string} until */
function span(since, until) {
  const [first, last] = [stamp(since), stamp(until)];
  const day = "2026-11-19 ".length;
  return `${first} to ${first.slice(0, day) === last.slice(0, day) ? last.slice(day) : last} UTC`;
}

/** @param {Piece} piece */
function pieceTold(piece) {
  return `${piece.label}, ${piece.rows.toLocaleString("en")} ${piece.rows === 1 ? "row" : "rows"}`;
}

export { axis, cellTold, chartKey, chartRow, chartTold, effectChart, heatRow, keyOf, legend, pieceTold, span };
