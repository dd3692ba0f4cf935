"use strict";

// Seconds between two looks at who is connected.
const INTERVAL = 5;
const PAGE = 200;
// Where there are no more clients than this, what each of them serves is shown at once.
const FEW = 3;

const main = document.getElementById("clients");
const list = document.getElementById("list");
const search = document.getElementById("search");
const more = document.getElementById("more");
const count = document.getElementById("count");
const shown = new Map();
let limit = PAGE;
let asked = 0;
let timer;

function element(name, text, className) {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className || "";
  return made;
}

function link(text, href) {
  const made = element("a", text);
  made.href = href;
  return made;
}

function events(documentOfClient, docs) {
  const rows = element("ul", "");
  for (const [path, operations] of Object.entries(documentOfClient.paths)) {
    for (const [verb, operation] of Object.entries(operations)) {
      const row = element("li", "", verb);
      const event = link("", `${docs}#/${operation.tags[0]}/${operation.operationId}`);
      event.className = "event";
      event.append(element("b", verb.toUpperCase()), element("span", path, operation.deprecated ? "deprecated" : ""));
      row.append(event, element("span", operation.summary, "what"));
      rows.append(row);
    }
  }
  return rows;
}

async function fill(client, inside) {
  if (client.forwards) {
    const told = element("p", "It passes every request below ");
    told.append(link(client.path, client.path), " on to an HTTP service, which may have ");
    told.append(link("a description of its own", client.docs), ".");
    inside.replaceChildren(told);
    return;
  }
  try {
    const response = await fetch(client.document, {headers: {Prefer: "wait=0"}});
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.detail);
    const ways = element("p", "");
    ways.append(link("Try it out", client.docs), " \u00b7 ", link("OpenAPI document", client.document));
    inside.replaceChildren(ways, events(answer, client.docs));
  } catch (error) {
    inside.replaceChildren(element("p", error.message));
  }
}

function row(client) {
  const made = document.createElement("details");
  const head = document.createElement("summary");
  const inside = element("div", "", "inside");
  made.append(head, inside);
  made.addEventListener("toggle", () => made.open && fill(made.client, inside));
  return made;
}

function update(made, client) {
  const number = client.forwards ? "HTTP service" : client.events === 1 ? "1 event" : `${client.events} events`;
  const told = JSON.stringify(client);
  if (made.told === told) return;
  made.told = told;
  made.client = client;
  made.firstChild.replaceChildren(
    element("span", client.name, "name"), element("span", `${client.address}, ${client.software}`, "about"),
    element("span", number, "number"));
  if (made.open) fill(client, made.lastChild);
}

async function refresh() {
  clearTimeout(timer);
  const number = ++asked;
  try {
    const query = new URLSearchParams({search: search.value, limit});
    const response = await fetch(`${main.dataset.list}?${query}`);
    const found = await response.json();
    if (number !== asked) return;
    if (!response.ok) throw new Error(found.detail);
    const rows = found.clients.map((client) => {
      const made = shown.get(client.name) || row(client);
      update(made, client);
      if (!shown.has(client.name)) made.open = found.connected <= FEW;
      shown.set(client.name, made);
      return made;
    });
    const names = new Set(found.clients.map((client) => client.name));
    for (const name of shown.keys()) if (!names.has(name)) shown.delete(name);
    if (rows.length !== list.children.length || rows.some((made, i) => made !== list.children[i])) list.replaceChildren(...rows);
    count.textContent = search.value.trim() ? `${found.matching} of ${found.connected} connected` : `${found.connected} connected`;
    more.hidden = found.matching <= rows.length;
  } catch (error) {
    if (number === asked) count.textContent = `The node does not answer: ${error.message}`;
  }
  if (number === asked) timer = setTimeout(refresh, INTERVAL * 1000);
}

search.addEventListener("input", () => { limit = PAGE; refresh(); });
more.addEventListener("click", () => { limit += 5 * PAGE; refresh(); });
refresh();
