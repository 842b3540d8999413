// @ts-check
/**
 * The slice that is pointed at, and those that are chosen: where they are, and what is said of them.
 *
 * @typedef {import("./timeline.js").Piece} Piece
 * @typedef {import("./timeline.js").Timeline} Timeline
 * @typedef {{ since: string, until: string }} Stretch
 * @typedef {[number, number]} Range
 * @typedef {{ before: HTMLElement, after: HTMLElement, cursor: HTMLElement, spot: HTMLElement,
 *   tip: HTMLElement, stage: HTMLElement }} Marks
 */

import { clipped, element } from "./shared.js";
import { cellTold, chartKey, chartTold, keyOf, pieceTold, span } from "./timeline.js";

/**
 * Put the cursor over a slice and the veils beside those that are chosen.
 *
 * @param {Marks} marks
 * @param {{ slices: number, at: number | null, range: Range | null }} place
 */
function mark({ before, after, cursor, spot }, { slices, at, range }) {
  cursor.hidden = spot.hidden = at === null || slices === 0;
  before.hidden = after.hidden = range === null;
  // On these alone: what inherits a property is styled anew with each step of the pointer.
  for (const made of [cursor, spot]) {
    made.style.setProperty("--nbm-from", String((at ?? 0) / slices));
    made.style.setProperty("--nbm-slice", String(1 / slices));
  }
  if (!range) return;
  before.style.setProperty("--nbm-to", String(range[0] / slices));
  after.style.setProperty("--nbm-from", String((range[1] + 1) / slices));
}

/**
 * Say what is found in a slice where a lane is pointed at, beside it.
 *
 * @param {Marks} marks
 * @param {Timeline | null} timeline
 * @param {number | null} at
 * @param {Element | null} lane
 */
function tell({ spot, tip, stage }, timeline, at, lane) {
  const piece = timeline && at !== null ? timeline.pieces[at] : undefined;
  if (!lane || !piece || !timeline || at === null) {
    tip.replaceChildren();
    spot.remove();
    return;
  }
  const made = lane.closest(".nbm-track");
  const row = timeline.rows.find((one) => keyOf(one) === made?.getAttribute("data-row"));
  const chart = timeline.charts.find((one) => chartKey(one) === made?.getAttribute("data-chart"));
  let lines = [piece.verdict === "unknown" ? "not judged" : piece.verdict, pieceTold(piece)];
  if (row) lines = cellTold(row, piece, at);
  else if (chart) lines = chartTold(chart, piece, at);
  tip.replaceChildren(...lines.map((line) => element("span", {}, clipped(line, 200))));
  lane.append(spot);
  const [box, whole] = [lane.getBoundingClientRect(), stage.getBoundingClientRect()];
  const middle = box.left - whole.left + ((at + 0.5) / timeline.pieces.length) * box.width;
  const left = Math.min(Math.max(0, middle - tip.offsetWidth / 2), whole.width - tip.offsetWidth);
  tip.style.left = `${Math.max(0, left)}px`;
  tip.style.top = `${box.bottom - whole.top + 6}px`;
}

/** @param {Element} lane @param {number} x @param {number} slices */
function sliceAt(lane, x, slices) {
  const box = lane.getBoundingClientRect();
  return Math.min(slices - 1, Math.max(0, Math.floor(((x - box.left) / box.width) * slices)));
}

/**
 * Return the first and the last slice within a stretch of time.
 *
 * @param {Piece[]} pieces
 * @param {Stretch | null} stretch
 * @returns {Range | null}
 */
function rangeOf(pieces, stretch) {
  if (!stretch) return null;
  const [since, until] = [Date.parse(stretch.since), Date.parse(stretch.until)];
  const inside = pieces.flatMap((piece, index) =>
    Date.parse(piece.since) >= since && Date.parse(piece.until) <= until ? [index] : [],
  );
  return inside.length ? [inside[0], inside[inside.length - 1]] : null;
}

/** @param {Piece[]} pieces @param {Range | null} range @returns {Stretch | null} */
function stretchOf(pieces, range) {
  return range ? { since: pieces[range[0]].since, until: pieces[range[1]].until } : null;
}

/**
 * Return in words which slices are chosen.
 *
 * @param {Piece[]} pieces
 * @param {Range | null} range
 * @param {Stretch | null} chosen
 */
function chosenTold(pieces, range, chosen) {
  if (!range) {
    return chosen
      ? [span(chosen.since, chosen.until), "no longer among these times"]
      : ["Drag along the times to choose a window."];
  }
  const part = pieces.slice(range[0], range[1] + 1);
  const rows = part.reduce((sum, piece) => sum + piece.rows, 0);
  const alerts = part.filter((piece) => piece.verdict === "alert").length;
  return [
    span(part[0].since, part[part.length - 1].until),
    `${part.length} of ${pieces.length} slices`,
    `${rows.toLocaleString("en")} rows`,
    `${alerts} with an alert`,
  ];
}

export { chosenTold, mark, rangeOf, sliceAt, stretchOf, tell };
