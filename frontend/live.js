// The live view: one stream through one model, as the model hears it. Nothing of it is kept, here or there.

import { FEATURES, ScoreChart, ScrollingFeatures } from "./charts.js";
import { byId, element, explained, keyed, setText, showState } from "./dom.js";
import { colourClass, colourOf, icon, iconOf } from "./labels.js";
import { Said } from "./said.js";

const SPAN_S = 10;
const DRAWN_MS = 50; // from one picture to the next; with reduced motion 1 s
const CLIPPED_PEAK = 0.999;
const CLIPPED_MS = 1500;
const STALE_MS = 1500;
const MARK_ROWS = 3;

export class LiveView {
  #chart = null;
  #clippedUntil = 0;
  #drawn = 0;
  #epoch = null;
  #lead_s = 0; // stream time less this page's clock
  #level = 0;
  #levelAt = 0;
  #marks = [];
  #models = new Map();
  #own = new Map(); // stream -> model -> label -> settings, of those that have settings of their own
  #newest = null; // the newest message's end_s
  #scores = null; // of the last patch
  #shown = null; // the model whose rows and chart are built, as text
  #socket = null;
  #times = [];
  #values = [];

  constructor(client) {
    this.client = client;
    this.features = new ScrollingFeatures(byId("features"), SPAN_S);
    this.said = new Said(client, SPAN_S);
    this.model = null;
    this.stream = null;
    byId("stream").addEventListener("change", () => this.pick(byId("stream").value, this.model));
    byId("model").addEventListener("change", () => this.pick(this.stream, byId("model").value));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#build(true));
    const draw = () => {
      requestAnimationFrame(draw);
      this.#draw();
    };
    draw();
  }

  /** The streams to choose from; the first is looked at where none is. */
  showStreams(streams) {
    this.#own = new Map(streams.map((s) => [s.name, s.detection]));
    this.#build();
    const names = streams.map((s) => s.name);
    if (this.stream && !names.includes(this.stream)) names.push(this.stream);
    const kinds = new Map(streams.map((s) => [s.name, s.kind === "demo" ? "demo audio, synthetic" : s.kind]));
    keyed(byId("stream"), names, (i) => element("option", { value: names[i] }), (option, i) => {
      setText(option, `${names[i]} (${kinds.get(names[i]) ?? "ended"})`);
    });
    byId("stream").disabled = names.length === 0;
    if (this.stream) byId("stream").value = this.stream;
    else if (names.length) this.pick(names[0], this.model);
    if (!this.stream) showState("live-state", "empty", "No stream yet. Press Listen to use this browser's microphone.");
  }

  showModels(models) {
    this.#models = new Map(models.map((m) => [m.name, m]));
    keyed(byId("model"), models.map((m) => m.name), (i) => element("option", { value: models[i].name }, models[i].name));
    if (!this.#models.has(this.model)) this.model = models[0]?.name ?? null;
    byId("model").value = this.model;
    this.#build();
    if (this.stream && !this.#socket) this.pick(this.stream, this.model);
  }

  /** Look at a stream through a model. */
  pick(stream, model) {
    this.#socket?.close();
    this.#socket = null;
    this.stream = stream;
    this.model = model;
    this.#forget();
    if (!stream || !model) return;
    this.#build();
    this.#follow(stream, model);
  }

  /** The server is back, or wants another token. */
  again() {
    if (this.stream) this.pick(this.stream, this.model);
  }

  /** A detection of any stream. */
  mark(d) {
    if (d.stream !== this.stream || d.model !== this.model || d.epoch !== this.#epoch || d.phase === "end") return;
    const latency = d.latency_ms == null ? "" : ` ${Math.round(d.latency_ms)} ms`;
    const row = this.#marks.length ? (this.#marks.at(-1).row + 1) % MARK_ROWS : 0;
    this.#marks.push({ at_s: d.decided_s, text: `${iconOf(d.label)} ${d.label}${latency}`, colour: colourOf(d.label), row });
    if (this.#marks.length > 50) this.#marks.shift();
  }

  async #follow(stream, model) {
    const socket = (this.#socket = this.client.socket("/v1/live", { stream, model }));
    showState("live-state", "wait", "Connecting…");
    for await (const message of socket) {
      if (socket !== this.#socket) return;
      this.#take(message);
    }
    if (socket !== this.#socket) return;
    this.#socket = null;
    if (socket.code === 4403) return; // why is shown already, and another try would meet it again
    if (socket.code !== 4401) showState("live-state", "wait", "The connection is lost, trying again…");
    setTimeout(() => this.#socket === null && stream === this.stream && this.pick(stream, this.model), 2000);
  }

  #take(message) {
    if (message.type === "frames") {
      this.features.add(message.first_s, message.end_s, message.values);
      this.#moved(message.end_s);
    } else if (message.type === "scores") {
      this.#times.push(message.end_s);
      message.values.forEach((v, i) => this.#values[i]?.push(v));
      this.#scores = message.values;
      this.#moved(message.end_s);
    } else if (message.type === "level") {
      this.#level = message.peak;
      this.#levelAt = performance.now();
      if (message.peak >= CLIPPED_PEAK) this.#clippedUntil = this.#levelAt + CLIPPED_MS;
    } else if (message.type === "live") {
      if (message.epoch !== this.#epoch) this.#forget();
      this.#epoch = message.epoch;
      showState("live-state", "live", "");
      void this.said.of(message.kind);
    } else if (message.type === "waiting") {
      showState("live-state", "wait", `Stream ${message.stream} has ended; this view goes on when it comes back.`);
    } else if (message.type === "gap") {
      showState("live-state", "wait", `${message.n} samples were lost (${message.reason}).`);
    } else if (message.type === "skipped") {
      showState("live-state", "wait", "This connection is too slow for the live view: parts of the picture are missing.");
    } else if (message.type === "error") {
      showState("live-state", "fault", explained(message.message));
    }
  }

  #moved(end_s) {
    const lead_s = end_s - performance.now() / 1000;
    const jumped = this.#newest === null || Math.abs(lead_s - this.#lead_s) > 2;
    this.#lead_s = jumped ? lead_s : Math.max(lead_s, this.#lead_s - 0.0005);
    this.#newest = Math.max(end_s, jumped ? end_s : this.#newest);
  }

  #forget() {
    const model = this.#models.get(this.model);
    this.features.clear(model?.front_end.kind ?? "mfcc");
    this.#times = [];
    this.#values = (model?.labels ?? []).map(() => []);
    this.#scores = null;
    this.#newest = null;
    this.#epoch = null;
    this.#marks = [];
    this.#level = 0;
  }

  /** What makes a label fire on this stream. */
  #settings(model) {
    return this.#own.get(this.stream)?.[model.name] ?? model.detection;
  }

  /** The rows of labels and the chart, anew where the model or its settings have changed. */
  #build(always = false) {
    const model = this.#models.get(this.model);
    const settings = model && this.#settings(model);
    const text = JSON.stringify([model?.name, model?.digest, model?.labels, settings]);
    if (!model || (text === this.#shown && !always)) return;
    this.#shown = text;
    if (this.#values.length !== model.labels.length) this.#forget();
    setText(byId("words-title"), model.task === "event" ? "Sounds it knows" : "Words it knows");
    setText(byId("features-title"), `${FEATURES[model.front_end.kind]} as ${model.name} hears them`);
    byId("scores").replaceChildren(...model.labels.map((label) => this.#row(model, label, settings[label])));
    const dark = getComputedStyle(byId("score-chart")).color;
    const curves = model.labels.map((label) => {
      const threshold = settings[label]?.threshold;
      return threshold === undefined
        ? { label, colour: dark, width: 0.5 }
        : { label, colour: colourOf(label), threshold, width: 2 };
    });
    this.#chart?.destroy();
    this.#chart = new ScoreChart(byId("score-chart"), curves, { marks: () => this.#marks, span_s: SPAN_S });
    this.#drawn = 0;
  }

  /** `settings`: the label's; a rest label has none. */
  #row(model, label, settings) {
    const name = element("span", "label", icon(label, settings ? undefined : "·"), label);
    const track = element("div", "track", element("div", "bar"));
    const row = element("li", settings ? colourClass(label) : "rest", name, track, element("span", "value", "–"));
    if (settings) {
      const mark = element("div", "mark");
      mark.style.left = `${100 * settings.threshold}%`;
      track.append(mark);
      row.title = `fires where its mean over ${settings.smoothing_ms} ms reaches ${settings.threshold}`;
    }
    if (model.experimental_labels.includes(label)) row.append(element("em", "", "experimental: few recordings"));
    return row;
  }

  #draw() {
    const now = performance.now();
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (now - this.#drawn < (calm ? 1000 : DRAWN_MS) || byId("view-live").hidden || document.hidden) return;
    this.#drawn = now;
    this.#drawLevel(now);
    const model = this.#models.get(this.model);
    if (!model || !this.#chart) return;
    const settings = this.#settings(model);
    byId("scores").childNodes.forEach((row, i) => {
      const value = this.#scores?.[i] ?? 0;
      row.querySelector(".bar").style.transform = `scaleX(${value})`;
      setText(row.querySelector(".value"), this.#scores ? value.toFixed(2) : "–");
      row.classList.toggle("above", value >= (settings[model.labels[i]]?.threshold ?? 2));
    });
    const live_s = now / 1000 + this.#lead_s;
    const now_s = this.#newest === null ? SPAN_S : Math.min(live_s, this.#newest + 0.5);
    this.features.draw(now_s);
    this.said.draw(now_s);
    const old = this.#times.findIndex((t) => t > now_s - SPAN_S - 5);
    if (old > 500) {
      this.#times.splice(0, old);
      for (const values of this.#values) values.splice(0, old);
    }
    this.#chart.show([this.#times, ...this.#values], now_s - SPAN_S, now_s);
  }

  #drawLevel(now) {
    const peak = now - this.#levelAt < STALE_MS ? this.#level : 0;
    const clipping = now < this.#clippedUntil;
    const level_db = Math.max(-60, Math.min(0, Math.round(20 * Math.log10(peak || 1e-9))));
    byId("level").setAttribute("aria-valuenow", level_db);
    byId("level-bar").style.transform = `scaleX(${(60 + level_db) / 60})`;
    byId("level").dataset.clipping = clipping;
    byId("clipping").hidden = !clipping;
    setText(byId("level-text"), peak > 0 ? `${level_db} dB` : "No level");
  }
}
