// The page of an endpoint: all it shows comes from openapi.json, and only as text nodes.
"use strict";

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
  for (const text of cells) {
    const cell = document.createElement("td");
    cell.textContent = text;
    row.append(cell);
  }
  at(id).append(row);
}

/** @param {string} text */
function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

const request = /** @type {HTMLTextAreaElement} */ (at("request"));
const button = /** @type {HTMLButtonElement} */ (at("try"));
const predictUrl = new URL("predict", document.baseURI).href;

function showCurl() {
  const parts = ["curl", quoted(predictUrl), "-H 'Content-Type: application/json'", "-d"];
  at("curl").textContent = `${parts.join(" ")} ${quoted(request.value)}`;
}

/** @param {string} text */
function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

async function tryIt() {
  button.disabled = true;
  at("status").textContent = "...";
  const began = performance.now();
  try {
    const answer = await fetch(predictUrl, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: request.value,
    });
    const text = await answer.text();
    const took = (performance.now() - began).toFixed(0);
    at("status").textContent = `status ${answer.status} after ${took} ms`;
    at("answer").textContent = pretty(text);
  } catch (error) {
    at("status").textContent = "";
    at("answer").textContent = `No answer: ${String(error)}`;
  } finally {
    button.disabled = false;
  }
}

/** @param {any} described the OpenAPI document */
function show(described) {
  document.title = `${described.info.title} - nbmlops endpoint`;
  at("title").textContent = described.info.title;
  at("described").textContent = described.info.description;
  const predict = described.paths["/predict"];
  if (!predict) return;
  const content = predict.post.requestBody.content["application/json"];
  request.value = JSON.stringify(content.example, null, 2);
  for (const [name, column] of Object.entries(described.components.schemas.Record.properties)) {
    const types = [column.type].flat().join(" or ");
    const seen = [column.description, (column.examples ?? []).join(", ")];
    addRow("columns", [name, types, seen.filter(Boolean).join(" ")]);
  }
  for (const [status, response] of Object.entries(predict.post.responses)) {
    addRow("statuses", [status, response.description]);
  }
  showCurl();
  button.disabled = false;
}

async function start() {
  request.addEventListener("input", showCurl);
  button.addEventListener("click", tryIt);
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
