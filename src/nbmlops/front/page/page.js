// The page of an endpoint: all it shows comes from openapi.json, and only as text nodes.
"use strict";

const JSON_TYPE = "application/json";

/** @param {string} id */
function at(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return found;
}

/**
 * @param {string} id
 * @param {string[]} cells
 */
function addRow(id, cells) {
  const row = document.createElement("tr");
  for (const [number, text] of cells.entries()) {
    const cell = document.createElement("td");
    // The first names something, and is shown as it is.
    if (number === 0) cell.textContent = text;
    else showMarked(cell, text);
    row.append(cell);
  }
  at(id).append(row);
}

/**
 * @param {HTMLElement} list
 * @param {string} value
 * @param {string} text
 */
function addOption(list, value, text) {
  const option = document.createElement("option");
  option.value = value;
  option.textContent = text;
  list.append(option);
}

/** @param {string} text */
function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/**
 * Indent a document; lists of plain values stay on one line.
 * @param {unknown} value
 */
function indented(value) {
  const text = JSON.stringify(value, null, 2);
  const plain = /"(?:[^"\\]|\\.)*"|\[\s+((?:"(?:[^"\\]|\\.)*"|[^"[\]{}])*?)\s+\]/g;
  return text.replace(plain, (whole, inside) =>
    inside === undefined ? whole : `[${inside.replace(/,\n\s*/g, ", ")}]`,
  );
}

/** @param {string} text */
function pretty(text) {
  try {
    return indented(JSON.parse(text));
  } catch {
    return text;
  }
}

/**
 * Show a text whose code stands between backticks and whose headings between two stars.
 * @param {HTMLElement} place
 * @param {string} text
 */
function showMarked(place, text) {
  place.replaceChildren();
  for (const part of text.split(/(`[^`]+`|\*\*[^*]+\*\*)/)) {
    const kind = part.startsWith("`") ? "code" : part.startsWith("**") ? "strong" : "span";
    const piece = document.createElement(kind);
    piece.textContent = part.replace(/^(`|\*\*)(.*)\1$/s, "$2");
    place.append(piece);
  }
}

const request = /** @type {HTMLTextAreaElement} */ (at("request"));
const button = /** @type {HTMLButtonElement} */ (at("try"));
const operationList = /** @type {HTMLSelectElement} */ (at("operation"));
const versionList = /** @type {HTMLSelectElement} */ (at("version"));
const exampleList = /** @type {HTMLSelectElement} */ (at("example"));

/** @type {any} the OpenAPI document */
let described = null;
/** @type {{path: string, method: string, about: any}[]} */
const operations = [];

function chosen() {
  return operations[Number(operationList.value)];
}

/** @param {any} about an operation: its examples by name */
function examplesOf(about) {
  const content = about.requestBody?.content[JSON_TYPE] ?? {};
  const only = content.example === undefined ? {} : { example: { value: content.example } };
  return content.examples ?? only;
}

// The paths are relative to where the page lies, so that it works behind a proxy's prefix.
function urlOf() {
  const path = chosen().path.replace("{version}", encodeURIComponent(versionList.value));
  return new URL(path.slice(1), document.baseURI).href;
}

function showCurl() {
  const parts = ["curl", quoted(urlOf())];
  if (chosen().about.requestBody) {
    parts.push(`-H 'Content-Type: ${JSON_TYPE}'`, "-d", quoted(request.value));
  }
  at("curl").textContent = parts.join(" ");
}

function showExample() {
  const example = examplesOf(chosen().about)[exampleList.value];
  request.value = example === undefined ? "" : indented(example.value);
  showCurl();
}

/** @param {any} response a response, or where it stands */
function resolved(response) {
  const name = response.$ref?.split("/").at(-1);
  return name === undefined ? response : described.components.responses[name];
}

function showOperation() {
  const { about } = chosen();
  at("summary").textContent = about.summary;
  at("more").hidden = about.description === undefined;
  showMarked(at("about"), about.description ?? "");
  const version = (about.parameters ?? []).find((/** @type {any} */ one) => one.name === "version");
  at("version-field").hidden = version === undefined;
  versionList.replaceChildren();
  for (const number of version?.schema.enum ?? []) addOption(versionList, number, number);
  const examples = Object.entries(examplesOf(about));
  at("example-field").hidden = examples.length < 2;
  exampleList.replaceChildren();
  for (const [name, example] of examples) addOption(exampleList, name, example.summary ?? name);
  at("request-field").hidden = about.requestBody === undefined;
  at("statuses").replaceChildren();
  for (const [status, response] of Object.entries(about.responses)) {
    addRow("statuses", [status, resolved(response).description]);
  }
  at("answer").textContent = "";
  told("");
  showExample();
}

/**
 * @param {string} text
 * @param {boolean=} good
 */
function told(text, good) {
  at("status").textContent = text;
  if (good === undefined) delete at("status").dataset.good;
  else at("status").dataset.good = String(good);
}

async function send() {
  button.disabled = true;
  told("Waiting for the answer.");
  const { method, about } = chosen();
  const began = performance.now();
  try {
    const body = about.requestBody === undefined ? undefined : request.value;
    const headers = body === undefined ? {} : { "Content-Type": JSON_TYPE };
    const answer = await fetch(urlOf(), { method: method.toUpperCase(), headers, body });
    const text = await answer.text();
    const took = (performance.now() - began).toFixed(0);
    told(`Status ${answer.status} after ${took} ms`, answer.ok);
    at("answer").textContent = pretty(text);
  } catch (error) {
    told("No answer", false);
    at("answer").textContent = String(error);
  } finally {
    button.disabled = false;
  }
}

/** @param {any} found the OpenAPI document */
function show(found) {
  described = found;
  document.title = `${described.info.title} - nbmlops endpoint`;
  at("title").textContent = described.info.title;
  at("described").textContent = described.info.description;
  for (const { name } of described.tags) {
    const group = document.createElement("optgroup");
    group.label = described.tags.find((/** @type {any} */ tag) => tag.name === name).description;
    for (const [path, methods] of Object.entries(described.paths)) {
      for (const [method, about] of Object.entries(/** @type {any} */ (methods))) {
        if (!about.tags.includes(name)) continue;
        operations.push({ path, method, about });
        addOption(group, String(operations.length - 1), `${method.toUpperCase()} ${path}`);
      }
    }
    if (group.children.length > 0) operationList.append(group);
  }
  const columns = described.components.schemas.Record?.properties ?? {};
  at("columns-section").hidden = Object.keys(columns).length === 0;
  for (const [name, column] of Object.entries(/** @type {any} */ (columns))) {
    const types = [column.type].flat().join(" or ");
    const seen = [column.description, (column.examples ?? []).join(", ")];
    addRow("columns", [name, types, seen.filter(Boolean).join(" ")]);
  }
  showOperation();
  button.disabled = false;
}

async function start() {
  request.addEventListener("input", showCurl);
  operationList.addEventListener("change", showOperation);
  versionList.addEventListener("change", showCurl);
  exampleList.addEventListener("change", showExample);
  button.addEventListener("click", send);
  try {
    const answer = await fetch(new URL("openapi.json", document.baseURI));
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    show(await answer.json());
  } catch (error) {
    at("problem").hidden = false;
    at("problem").textContent = `The endpoint does not describe itself: ${String(error)}`;
  }
}

start();
