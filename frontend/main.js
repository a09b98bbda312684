// Joins the parts: one client, the views, and what keeps them up to date.

import { Alerts } from "./alerts.js";
import { byId, element, seconds, setText, showNotice, showState } from "./dom.js";
import { History } from "./history.js";
import { KwsClient } from "./kws-client.js";
import { learnLabels } from "./labels.js";
import { LiveView } from "./live.js";
import { Microphone } from "./microphone.js";
import { Settings } from "./settings.js";
import { System } from "./system.js";
import { Why } from "./why.js";

const POLL_MS = 2000;
const FIRST_CARDS = 50;
const RETRY_MS = 2000;
const VIEWS = ["live", "history", "settings", "system"];

const client = new KwsClient(new URL(".", location.href), sessionStorage.getItem("token")); // this tab only
const live = new LiveView(client);
const history = new History(client, showWhy, tellFault);
const why = new Why(client, (id, mark) => history.showMark(id, mark), tellFault);
const alerts = new Alerts(showWhy);
const settings = new Settings(client, tellFault, refresh);
const system = new System((row) => {
  const text = row.state === "OFF" ? `last seen ${new Date(row.last_seen).toLocaleTimeString()}, ${row.detail}` : "is back";
  showNotice(`Server ${row.name} (${row.address}) is ${row.state}: ${text}`);
  alerts.tell(`${row.name} is ${row.state}`, text);
});
const microphone = new Microphone(client, {
  notice: showNotice,
  token: askForToken,
  stream: (name) => live.pick(name, live.model),
  state(state, text) {
    showState("microphone-state", state, text);
    setText(byId("listen"), microphone.running ? "Stop" : "Listen");
    byId("listen").disabled = state === "asking";
    byId("insecure").hidden = state !== "insecure";
  },
});

function showWhy(id) {
  why.show(id);
}

// Views

let shown = null;

function showView() {
  const asked = location.hash.slice(1);
  const name = VIEWS.includes(asked) ? asked : shown ?? "live"; // another hash is the skip link's
  if (name === shown) return;
  shown = name;
  for (const view of VIEWS) byId(`view-${view}`).hidden = view !== name;
  for (const link of document.querySelectorAll("nav a"))
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  if (name === "history") history.load();
}

// Detections

let newest = null; // the last id that was shown
let lostAt = null;
let away_s = 0; // how long the connection was lost; 0: it was not, or all that was missed is shown
let missed = 0;
let recovered = 0;

client.addEventListener("connection", ({ detail }) => {
  if (detail.state === "lost") {
    lostAt ??= performance.now();
    showState("listening", "off", ""); // nobody knows
    return showState("connection", "wait", "Connection lost, reconnecting…");
  }
  showState("connection", "live", "Connected");
  if (lostAt !== null) {
    away_s = (performance.now() - lostAt) / 1000;
    missed = Math.max(0, detail.last_id - (newest ?? 0));
    recovered = 0;
    lostAt = null;
    live.again();
    tellAway();
    refresh();
  }
});

function tellAway() {
  const what = recovered ? `recovered ${recovered}` : missed ? "fetching what was missed…" : "nothing was missed";
  showNotice(`Away ${Math.max(1, Math.round(away_s))} s, ${what}.`);
}

async function follow() {
  for (;;) {
    try {
      if (newest === null) {
        showState("connection", "wait", "Connecting…");
        await refresh();
        const { items } = await client.json(`/v1/detections?before=${Number.MAX_SAFE_INTEGER}&limit=${FIRST_CARDS}`);
        for (const d of items.reverse()) alerts.take(d);
        newest = items.at(-1)?.id ?? 0;
      }
      for await (const message of client.detections({ after: newest })) take(message);
    } catch (error) {
      if (error.code === 4401 || error.code === 401) {
        showState("connection", "token", "Token needed");
        return askForToken();
      }
      if (error.code === 4403 || error.code === 403) return showState("connection", "refused", `Refused: ${error.message}`);
      showState("connection", "wait", "The server does not answer, trying again…");
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

function take(message) {
  if (message.type === "log_gap")
    return showNotice(`Detections ${message.from} to ${message.to} are no longer kept (${message.reason}).`);
  newest = message.id;
  if (!alerts.take(message)) return;
  if (message.replayed && away_s) {
    recovered++;
    tellAway();
  } else {
    away_s = 0;
  }
  live.mark(message);
}

// State of the server

async function refresh() {
  try {
    const [status, models, servers] = await Promise.all(
      ["/v1/status", "/v1/models", "/v1/servers"].map((path) => client.json(path)));
    const names = models.items.map((m) => Object.keys(m.detection)).flat();
    learnLabels(models.items);
    showListening(status);
    live.showModels(models.items);
    live.showStreams(status.streams);
    history.showNames(status.streams.map((s) => s.name), [...new Set(names)]);
    settings.show(models.items, status.scopes.includes("admin"));
    system.status(status);
    system.models(models.items);
    system.servers(servers.items);
    setText(byId("no-detections"), `Nothing detected yet. Try: ${names.join(", ")}.`);
    setText(byId("note"), status.note);
    setText(byId("version"), `kws-serve ${status.version} on ${status.name}`);
  } catch (error) {
    tellFault(error);
  }
}

function showListening({ streams }) {
  const heard = streams.map((s) => (s.connected ? s.name : `${s.name} (away)`));
  const text = heard.length > 3 ? `${heard.length} streams` : heard.join(", ");
  showState("listening", heard.length ? "live" : "off", heard.length ? `Listening: ${text}` : "Nothing is listening");
}

async function poll() {
  await refresh();
  setTimeout(poll, POLL_MS);
}

function tellFault(error) {
  if (error.code === 401) askForToken();
}

// Token

function askForToken() {
  byId("token-form").hidden = false;
  showState("live-state", "wait", "This server asks for a token: give it above.");
}

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  client.token = byId("token").value.trim();
  sessionStorage.setItem("token", client.token);
  byId("token").value = "";
  byId("token-form").hidden = true;
  follow();
  refresh();
  live.again();
});

byId("listen").addEventListener("click", () => (microphone.running ? microphone.stop() : microphone.start()));
byId("notice-close").addEventListener("click", () => showNotice(""));
addEventListener("hashchange", showView);
addEventListener("pagehide", () => microphone.running && microphone.stop());

const port = location.port || (location.protocol === "https:" ? 443 : 80);
setText(byId("tunnel"), `ssh -L 8000:localhost:${port} ${location.hostname}`);
byId("tunnel-link").replaceWith(element("a", { id: "tunnel-link", href: "http://localhost:8000/" }, "http://localhost:8000/"));
showView();
follow();
setTimeout(poll, POLL_MS); // the first time it is asked by follow()
