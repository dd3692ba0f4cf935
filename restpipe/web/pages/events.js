"use strict";

// Seconds between two looks at whether the document has changed.
const INTERVAL = 10;
const MANY = "x-restpipe-many";

const page = document.getElementById("events");
const message = document.getElementById("message");
const {document: address, prefix, forwards} = page.dataset;
let known;

// Swagger UI goes by a class, and not by what the browser prefers.
const dark = matchMedia("(prefers-color-scheme: dark)");
function followScheme() {
  document.documentElement.classList.toggle("dark-mode", dark.matches);
}
dark.addEventListener("change", followScheme);
followScheme();

function say(...parts) {
  message.replaceChildren(...parts);
  message.hidden = parts.length === 0;
}

// Swagger UI fills in no path that has "//", so that it is given another mark in its place, which no noun has.
const MARK = "/--/";

function marked(paths) {
  return Object.fromEntries(Object.entries(paths).map(([path, item]) => [path.replace("//", MARK), item]));
}

// Paths whose last argument may be many: slashes between them are no part of them.
function manyOf(paths) {
  return Object.entries(paths)
    .filter(([, item]) => Object.values(item).some((operation) => (operation.parameters || []).some((each) => each[MANY])))
    .map(([path]) => {
      const [noun, named] = path.split("//");
      const before = named.split("/").slice(0, -1).map(() => "[^/]*/").join("");
      return new RegExp(`^(${encodeURI(noun)}//${before})([^?]*)(.*)$`);
    });
}

const showingPaths = () => ({
  wrapComponents: {
    DeepLink: (Original, {React}) => (props) =>
      React.createElement(Original, {...props, text: [props.text].flat().map((part) => part === "/--" ? "/" : part)}),
  },
});

function show(spec) {
  const server = new URL(forwards ? prefix : spec.servers[0].url, location.href).href.replace(/\/$/, "");
  const many = forwards ? [] : manyOf(spec.paths);
  SwaggerUIBundle({
    spec: {...spec, paths: forwards ? spec.paths : marked(spec.paths), servers: [{url: server}]},
    plugins: [showingPaths],
    dom_id: "#events",
    deepLinking: true,
    tryItOutEnabled: true,
    displayRequestDuration: true,
    defaultModelsExpandDepth: -1,
    validatorUrl: null,
    requestInterceptor: (request) => {
      if (forwards || !request.url.startsWith(server)) return request;
      const path = request.url.slice(server.length).replace(MARK, "//");
      const found = many.map((form) => form.exec(path)).find(Boolean);
      request.url = server + (found ? found[1] + found[2].replace(/%2F/gi, "/") + found[3] : path);
      return request;
    },
  });
}

async function look() {
  try {
    const response = await fetch(address, {headers: {Prefer: "wait=0"}});
    const answer = await response.json().catch(() => null);
    const told = response.headers.get("ETag") || JSON.stringify(answer);
    if (response.ok && answer && answer.paths) {
      if (known === undefined) show(answer);
      if (known === undefined || known === told) say();
      else {
        const again = document.createElement("a");
        again.href = location.href;
        again.textContent = "Load this page again.";
        again.addEventListener("click", (event) => { event.preventDefault(); location.reload(); });
        say("What is served has changed. ", again);
      }
      known = known === undefined ? told : known;
    } else if (forwards) {
      const service = document.createElement("a");
      service.href = service.textContent = prefix;
      say("Every request below ", service, " goes to an HTTP service, which has no OpenAPI document at openapi.json.");
    } else {
      say(answer && answer.detail ? answer.detail : `The node answers ${response.status}.`);
    }
  } catch (error) {
    say(`The node does not answer: ${error.message}`);
  }
  setTimeout(look, INTERVAL * 1000);
}

if (matchMedia("(prefers-color-scheme: dark)").matches) document.documentElement.classList.add("dark-mode");
look();
