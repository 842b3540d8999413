// @ts-check
/**
 * What the live views share. The widgets put it before the view's own module, which is sent to the
 * browser as one. Everything that comes from data becomes a text node, never markup.
 *
 * @typedef {{ code: string, message: string, place: string, hint: string | null }} Cause
 * @typedef {{ what: string, type: string }} Command
 */

const SVG = "http://www.w3.org/2000/svg";

/**
 * Make an element with attributes and children; strings become text nodes.
 *
 * @param {string} tag
 * @param {Record<string, string>} [attributes]
 * @param {...(Node | string | null)} children
 * @returns {HTMLElement}
 */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

/**
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @param {...(Node | string)} children
 * @returns {SVGElement}
 */
function shape(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  made.append(...children);
  return made;
}

/**
 * Keep keys that are typed in a view from the notebook's shortcuts.
 *
 * Shortcuts are looked for from the focused element upwards, before any listener of ours, and some
 * are meant for whatever is focused: so each element says that it is none of theirs.
 *
 * @param {HTMLElement} root
 */
function keepKeys(root) {
  const mark = (/** @type {Element} */ one) => one.setAttribute("data-lm-suppress-shortcuts", "true");
  mark(root);
  root.addEventListener("focusin", (event) => mark(/** @type {Element} */ (event.target)));
}

/** @param {string} text @param {number} limit */
function clipped(text, limit) {
  return text.length <= limit ? text : `${text.slice(0, Math.max(1, limit - 1))}…`;
}

/** @param {number} seconds */
function length(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (/** @type {number} */ value) => String(value).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
}

/**
 * A time that has been told, or that runs on while the card is live.
 *
 * @param {string} took
 * @param {string | null} since
 */
function clock(took, since) {
  return element("span", since ? { class: "nbm-clock", "data-since": since } : { class: "nbm-clock" }, took);
}

/**
 * What a view is of, in which state and for how long, and a line of facts.
 *
 * @param {{ state: string, mark: string, ticking: boolean, since: string, took: string,
 *   facts: string[] }} shown
 * @param {string} name
 */
function head(shown, name) {
  return [
    element(
      "p",
      { class: "nbm-title", role: "heading", "aria-level": "3" },
      element(
        "span",
        { class: "nbm-badge", "data-state": shown.state, role: "status" },
        `${shown.mark} ${shown.state}`,
      ),
      element("strong", {}, name),
      clock(shown.took, shown.ticking ? shown.since : null),
    ),
    element("ul", { class: "nbm-facts" }, ...shown.facts.map((fact) => element("li", {}, fact))),
  ];
}

/** @param {Cause | null} cause */
function reason(cause) {
  if (!cause) return null;
  return element(
    "div",
    { class: "nbm-cause", role: "alert" },
    element(
      "p",
      {},
      element("strong", {}, cause.code),
      " ",
      element("span", { class: "nbm-where" }, cause.place),
    ),
    element("p", { class: "nbm-message" }, cause.message),
    cause.hint ? element("p", {}, cause.hint) : null,
  );
}

/** @param {Command[]} commands */
function next(commands) {
  if (!commands.length) return null;
  const items = commands.map(({ what, type }) =>
    element("li", {}, element("span", {}, what), element("code", {}, type)),
  );
  return element("ul", { class: "nbm-commands" }, ...items);
}

export { clipped, clock, element, head, keepKeys, length, next, reason, shape };
