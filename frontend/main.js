// Joins microphone, feed and view.

import { DetectionFeed, getJson, useToken } from "./connection.js";
import { Microphone } from "./microphone.js";
import * as view from "./view.js";

const POLL_MS = 2000;
const { byId } = view;

const feed = new DetectionFeed({
  detection: view.showDetection,
  notice: view.showNotice,
  state(state, text) {
    view.showState("connection", state, text);
    if (state === "token") askForToken();
    if (state === "live") {
      view.showNotice("");
      getJson("/v1/models").then(({ items }) => view.showModels(items), tellFault);
    }
  },
});

const microphone = new Microphone({
  level: view.showLevel,
  scores: view.showScores,
  notice: view.showNotice,
  token: askForToken,
  state(state, text) {
    view.showState("microphone-state", state, text);
    byId("listen").textContent = microphone.running ? "Stop" : "Listen";
    byId("listen").disabled = state === "asking";
    byId("insecure").hidden = state !== "insecure";
    if (!microphone.running) view.clearScores();
  },
});

function askForToken() {
  byId("token-form").hidden = false;
}

function tellFault(error) {
  if (error.status === 401) askForToken();
  else view.showNotice(`The server did not answer: ${error.message}`);
}

async function poll() {
  try {
    view.showStreams((await getJson("/v1/status")).streams);
  } catch (error) {
    if (error.status === 401) askForToken();
  }
  setTimeout(poll, POLL_MS);
}

byId("listen").addEventListener("click", () => (microphone.running ? microphone.stop() : microphone.start()));
byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken(byId("token").value.trim());
  byId("token").value = "";
  byId("token-form").hidden = true;
  feed.connect();
});
addEventListener("pagehide", () => microphone.running && microphone.stop());
addEventListener("online", () => feed.connect());

const port = location.port || (location.protocol === "https:" ? 443 : 80);
byId("tunnel").textContent = `ssh -L 8000:localhost:${port} ${location.hostname}`;
byId("tunnel-link").textContent = byId("tunnel-link").href = "http://localhost:8000/";
feed.connect();
poll();
