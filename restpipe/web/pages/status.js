"use strict";
// Asks `status` every two seconds while the page is seen, and draws the answer. What comes from the network is text:
// it is only ever put into text nodes.

const INTERVAL = 2000, TIMEOUT = 10000, SECONDS = 300, PAGE = 50, EVENTS = 500, SHOWN = 100;
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);
// Without the name and password that a URL may have: `fetch` refuses them, and the browser sends them by itself.
const base = new URL(".", location.href);
base.username = base.password = "";

const state = { started: null, sequence: 0, samples: {}, events: [], offset: 0, document: null, names: null };
let timer = 0, asking = null, failures = 0, paused = false;

const number = (value) => new Intl.NumberFormat("en", { maximumFractionDigits: value < 10 ? 1 : 0 }).format(value);
const plural = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;

function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1; }
  return `${number(value)} ${units[unit]}`;
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 0.9995) return `${number(seconds * 1000)} ms`;
  if (seconds < 60) return `${number(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds / 60) % 60} min`;
  return `${Math.floor(seconds / 86400)} days`;
}

function make(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function moment(timestamp, text) {
  const made = make("time", text);
  made.dateTime = made.title = new Date(timestamp * 1000).toISOString();
  return made;
}

const clock = (timestamp) => moment(timestamp, new Date(timestamp * 1000).toLocaleTimeString(undefined, { hourCycle: "h23" }));

function expiry(timestamp, now) {
  if (timestamp === null) return "";
  const left = timestamp - now, made = moment(timestamp, left > 0 ? `in ${duration(left)}` : "expired");
  made.className = left <= 0 ? "bad" : left < 14 * 86400 ? "warn" : "";
  return made;
}

// A column: heading, what it shows of an item, and its kind.
const PEERS = [
  ["Name", (peer) => peer.available ? peer.name : `${peer.name} (leaving)`],
  ["Address", (peer) => peer.address, "words"],
  ["Software", (peer) => peer.software.replace(/^restpipe\//, "")],
  ["Connected", (peer, now) => moment(peer.since, `${duration(Math.max(0, Math.round(now - peer.since)))}`), "figure"],
  ["Round trip", (peer) => duration(peer.round_trip_s), "figure"],
  ["Requests/s", (peer) => number(peer.rate), "figure"],
  ["In flight", (peer) => number(peer.in_flight), "figure"],
  ["Opened", (peer) => number(peer.opened), "figure"],
  ["Served", (peer) => number(peer.served), "figure"],
  ["Failed", (peer) => failed(peer.opened_failed + peer.served_failed), "figure"],
  ["In", (peer) => bytes(peer.received), "figure"],
  ["Out", (peer) => bytes(peer.sent), "figure"],
  ["Certificate", (peer, now) => expiry(peer.expires, now), "figure"],
];
const RECENT = [
  ["Event", (event) => `${event.verb.toUpperCase()} ${event.noun}`.trim() || "(never sent)"],
  ["Time", (event) => clock(event.ended)],
  ["Side", (event) => event.side],
  ["Peer", (event) => event.peer],
  ["Outcome", (event) => make("span", event.outcome, `outcome ${event.outcome === "done" ? "done" : "bad"}`)],
  ["Took", (event) => duration(event.seconds), "figure"],
  ["Request id", (event) => event.request_id, "words"],
  ["Fault", (event) => event.fault, "words"],
];

const failed = (count) => count ? make("span", number(count), "bad") : "0";

function head(row, columns) {
  row.replaceChildren(...columns.map(([label, , kind]) => {
    const cell = make("th", label, kind);
    cell.scope = "col";
    cell.setAttribute("role", "columnheader");
    return cell;
  }));
}

function fill(body, columns, items, now) {
  body.replaceChildren(...items.map((item) => {
    const row = make("tr");
    row.setAttribute("role", "row");
    columns.forEach(([label, show, kind], index) => {
      const cell = make(index ? "td" : "th", undefined, kind);
      cell.setAttribute("role", index ? "cell" : "rowheader");
      if (index) cell.dataset.label = label; else cell.scope = "row";
      cell.append(show(item, now));
      if (cell.textContent === "") cell.replaceChildren();
      row.append(cell);
    });
    return row;
  }));
}

function fit() {
  for (const place of document.querySelectorAll(".scroll")) {
    const table = place.firstElementChild;
    table.classList.remove("cards");
    table.classList.toggle("cards", place.scrollWidth > place.clientWidth);
  }
}

function tiles(told) {
  const last = (name, seconds = 5) => {
    const kept = (state.samples[name] || []).slice(-seconds);
    return kept.length ? kept.reduce((sum, each) => sum + each, 0) / kept.length : 0;
  };
  const errors = last("opened_failed") + last("served_failed");
  const isServer = told.node.role === "server";
  const shown = [
    [isServer ? "clients connected" : "connected to the server", isServer ? number(told.peers.connected) : told.peers.connected ? "yes" : make("span", "no", "bad")],
    ["requests/s", number(last("opened") + last("served"))],
    ["failed/s", errors ? make("span", number(errors), "bad") : "0"],
    ["in flight", number(told.peers.in_flight)],
    ["waiting to leave", number(told.peers.queued)],
    ["in, a second", bytes(last("received"))],
    ["out, a second", bytes(last("sent"))],
    ["requests, in all", number(told.totals.opened + told.totals.served)],
    ["repeats", number(told.totals.repeats)],
    [isServer ? "connections, in all" : "connections made", number(told.totals.connections)],
    ["up for", duration(Math.max(0, Math.round(told.now - told.node.started)))],
    ["own certificate ends", expiry(told.certificates.node, told.now)],
    ["CA certificate ends", expiry(told.certificates.ca, told.now)],
    ["first of peers' ends", told.peers.first_expires === null ? "–" : expiry(told.peers.first_expires, told.now)],
  ];
  $("tiles").replaceChildren(...shown.map(([label, value]) => {
    const tile = make("div"), figure = make("dd");
    figure.append(value);
    tile.append(make("dt", label), figure);
    return tile;
  }));
}

function plot(id, curves, show) {
  const svg = $(`plot-${id}`), most = Math.max(1, ...curves.flatMap(([, values]) => values));
  const parts = [];
  const line = document.createElementNS(SVG, "line");
  for (const [name, value] of [["x1", 0], ["x2", 600], ["y1", 4], ["y2", 4]]) line.setAttribute(name, value);
  parts.push(line);
  for (const [name, values] of curves) {
    const points = values.map((value, index) => {
      const x = 600 - (values.length - 1 - index) * 600 / (SECONDS - 1);
      return `${x.toFixed(1)},${(119 - 115 * value / most).toFixed(1)}`;
    });
    if (!points.length) continue;
    for (const [tag, ends] of [["polygon", "figure"], ["polyline", false]]) {
      const shape = document.createElementNS(SVG, tag);
      const first = points[0].split(",")[0];
      shape.setAttribute("class", name);
      shape.setAttribute("points", (ends ? [`${first},119`, ...points, "600,119"] : points).join(" "));
      parts.push(shape);
    }
  }
  svg.replaceChildren(...parts);
  const now = curves.map(([name, values]) => `${name} ${show(values.at(-1) || 0)}`).join(", ");
  svg.setAttribute("aria-label", `A second, now: ${now}. At most ${show(most)} in the last five minutes.`);
  $(`scale-${id}`).textContent = `top: ${show(most)}/s · last second: ${now}`;
}

function plots() {
  const sum = (one, other) => (state.samples[one] || []).map((value, index) => value + state.samples[other][index]);
  plot("requests", [["requests", sum("opened", "served")], ["failed", sum("opened_failed", "served_failed")]], number);
  plot("bytes", [["received", state.samples.received || []], ["sent", state.samples.sent || []]], bytes);
}

function peers(told) {
  const { list, matching, offset } = told.peers, wanted = $("clients").value.trim();
  fill($("peers"), PEERS, list, told.now);
  $("peers-none").hidden = list.length > 0;
  $("peers-none").textContent = wanted ? "No connected client matches." : "Nothing is connected.";
  $("paging").hidden = matching <= PAGE;
  $("range").textContent = `${number(Math.min(offset + 1, matching))} to ${number(offset + list.length)} of ${number(matching)}`;
  $("previous").disabled = offset === 0;
  $("next").disabled = offset + list.length >= matching;
}

function events() {
  const text = $("events-text").value.trim().toLowerCase(), outcome = $("outcome").value, side = $("side").value;
  const wanted = state.events.filter((event) =>
    (!side || event.side === side) &&
    (!outcome || (outcome === "!" ? event.outcome !== "done" : event.outcome === outcome)) &&
    (!text || `${event.verb} ${event.noun} ${event.peer} ${event.request_id} ${event.fault}`.toLowerCase().includes(text)));
  fill($("events"), RECENT, wanted.slice(0, SHOWN), 0);
  $("events-none").hidden = wanted.length > 0 && wanted.length <= SHOWN;
  $("events-none").textContent = wanted.length ? `and ${plural(wanted.length - SHOWN, "more")}` :
    state.events.length ? "None of them matches." : "There was none yet.";
  fit();
}

// Only what a person would want to be told: not that a figure changed.
function say(text, isBad = false) {
  if ($("live").textContent === text) return;
  $("live").textContent = text;
  $("live").className = isBad ? "bad" : "";
}

function take(told) {
  if (told.node.started !== state.started) {
    Object.assign(state, { started: told.node.started, samples: {}, events: [] });
  }
  for (const [name, values] of Object.entries(told.samples)) {
    state.samples[name] = [...(state.samples[name] || []), ...values].slice(-SECONDS);
  }
  state.events = [...told.events, ...state.events].slice(0, EVENTS);
  state.sequence = told.sequence;
  const before = state.document;
  state.document = told;
  if (before && before.peers.connected !== told.peers.connected) {
    say(`${plural(told.peers.connected, "peer")} connected, ${before.peers.connected} before.`);
  } else if (failures) {
    say("The node answers again.");
  }
}

function draw() {
  const told = state.document, { node } = told;
  document.title = `${node.name} - RestPipe`;
  $("title").textContent = `RestPipe ${node.role} node ${node.name}`;
  $("state").textContent = node.ready ? "ready" : "not ready";
  $("state").className = `badge ${node.ready ? "good" : "bad"}`;
  $("about").textContent = [node.fault, node.last_failure].filter(Boolean).join(": ");
  $("version").textContent = node.version;
  $("metrics").hidden = !node.metrics;
  $("peers-title").textContent = node.role === "server" ? "Clients" : "The server";
  $("peers-form").hidden = node.role !== "server";
  tiles(told);
  plots();
  peers(told);
  events();
}

async function ask() {
  clearTimeout(timer);
  if (asking) asking.abort();
  const mine = asking = new AbortController();
  const late = setTimeout(() => mine.abort(), TIMEOUT);
  const query = new URLSearchParams({ sort: $("sort").value, limit: PAGE, offset: state.offset });
  if ($("clients").value.trim()) query.set("clients", $("clients").value.trim());
  if (state.started !== null) query.set("since", state.sequence);
  try {
    const response = await fetch(new URL(`status?${query}`, base), { signal: mine.signal, cache: "no-store" });
    if (response.status === 401) throw new Error("the token is not accepted any more: load the page again");
    if (!response.ok) throw new Error(`it answered ${response.status}`);
    let told = await response.json();
    if (state.started !== null && told.node.started !== state.started) {
      query.delete("since");  // started anew: its numbers begin again
      told = await (await fetch(new URL(`status?${query}`, base), { signal: mine.signal, cache: "no-store" })).json();
    }
    if (mine !== asking) return;
    if (told.peers.list.length === 0 && state.offset > 0) {
      state.offset = 0;
      ask();
      return;
    }
    take(told);
    failures = 0;
    draw();
  } catch (error) {
    if (mine !== asking) return;
    failures += 1;
    $("state").textContent = "no answer";
    $("state").className = "badge bad";
    say(`The node does not answer: ${error.name === "AbortError" ? "it takes too long" : error.message}. Trying on.`, true);
  } finally {
    clearTimeout(late);
    if (mine === asking) {
      asking = null;
      if (!paused && !document.hidden) timer = setTimeout(ask, INTERVAL * Math.min(1 + failures, 5));
    }
  }
}

function rest() {
  clearTimeout(timer);
  if (asking) { const mine = asking; asking = null; mine.abort(); }
}

function turn(step) {
  state.offset = Math.max(0, state.offset + step * PAGE);
  ask();
}

head($("peers-head"), PEERS);
head($("events-head"), RECENT);
$("clients").addEventListener("input", () => { state.offset = 0; clearTimeout(timer); timer = setTimeout(ask, 250); });
$("sort").addEventListener("change", () => { state.offset = 0; ask(); });
$("previous").addEventListener("click", () => turn(-1));
$("next").addEventListener("click", () => turn(1));
for (const id of ["events-text", "outcome", "side"]) $(id).addEventListener("input", events);
addEventListener("resize", fit);
for (const form of document.forms) form.addEventListener("submit", (event) => event.preventDefault());
$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  say(paused ? "Paused." : "Going on.");
  if (paused) rest(); else ask();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) rest(); else if (!paused) ask();
});
ask();
