// Why something fired: the patch that decided, the scores around it, what they were compared with; and what people say.

import { FEATURES, ScoreChart, drawFeatures } from "./charts.js";
import { byId, element, explained, moment, setText, showState } from "./dom.js";
import { colourOf, iconOf } from "./labels.js";

const SHOWN = 4; // the label's own curve and those of the strongest others

export class Why {
  #chart = null;
  #id = null;

  /** `onMark(id, mark)`; `onFault(error)`. */
  constructor(client, onMark, onFault) {
    Object.assign(this, { client, onMark, onFault });
    byId("why-close").addEventListener("click", () => byId("why").close());
    byId("why").addEventListener("click", (event) => event.target === byId("why") && byId("why").close());
    byId("why").addEventListener("close", () => this.#clear());
    for (const mark of ["right", "wrong"]) byId(`mark-${mark}`).addEventListener("click", () => this.#mark(mark));
  }

  async show(id) {
    this.#id = id;
    this.#clear();
    setText(byId("why-title"), `Detection ${id}`);
    showState("why-state", "wait", "Loading…");
    if (!byId("why").open) byId("why").showModal();
    try {
      const found = await this.client.json(`/v1/detections/${id}/why`);
      if (id === this.#id) this.#show(found);
    } catch (error) {
      showState("why-state", "fault", error.code === 404 ? "The log does not keep this detection any more." : explained(error.message));
      this.onFault(error);
    }
  }

  #clear() {
    this.#chart?.destroy();
    this.#chart = null;
    byId("why-evidence").hidden = true;
    byId("why-facts").replaceChildren();
    byId("marks").hidden = true;
  }

  #show({ detection: d, settings, patch, scores, surroundings, verify, armed_s: armedS, untold }) {
    setText(byId("why-title"), `Why ${iconOf(d.label)} ${d.label}?`);
    showState("why-state", "off", patch ? "" : "The patch and the scores are kept in memory only, for a stream's last "
      + "100 detections since the server started. Of this one, the log knows:");
    this.#facts(d, settings, surroundings, verify, armedS, untold);
    byId("marks").hidden = false;
    this.#showMark(d.review ?? null);
    if (!patch) return;
    byId("why-evidence").hidden = false;
    setText(byId("why-patch-title"), `The patch that fired: ${FEATURES[patch.kind]}, ${patch.first_s.toFixed(2)} to ${patch.end_s.toFixed(2)} s`);
    drawFeatures(byId("why-patch"), patch.kind, patch.values);
    byId("why-patch").setAttribute("aria-label", `Picture of ${patch.values.length} feature vectors that ${d.model} heard`);
    this.#scores(d, settings, patch, scores);
  }

  #scores(d, settings, patch, scores) {
    const peaks = scores.labels.map((label, i) => [label, i, Math.max(...scores.values.map((row) => row[i]))]);
    const others = peaks.filter(([label]) => label !== d.label).sort((a, b) => b[2] - a[2]).slice(0, SHOWN - 1);
    const own = scores.labels.indexOf(d.label);
    const colour = colourOf(d.label);
    const { color } = getComputedStyle(byId("why-chart"));
    const curves = [
      { label: "smoothed", colour, width: 3, threshold: settings.threshold },
      { label: d.label, colour, width: 1, dash: [4, 3], threshold: settings.off_threshold },
      ...others.map(([label]) => ({ label, colour: label.startsWith("_") ? color : colourOf(label), width: 1 })),
    ];
    const columns = [own, ...others.map(([, i]) => i)].map((i) => scores.values.map((row) => row[i]));
    const marks = [{ at_s: patch.end_s, text: "decided", colour: color }];
    this.#chart = new ScoreChart(byId("why-chart"), curves, { marks: () => marks, height: 220 });
    const hop_s = scores.end_s.length > 1 ? scores.end_s[1] - scores.end_s[0] : 0.1;
    this.#chart.show([scores.end_s, scores.smoothed, ...columns], scores.end_s[0] - hop_s, scores.end_s.at(-1) + hop_s);
    byId("why-legend").replaceChildren(
      element("li", "", swatch(colour, "thick"), `${d.label}, mean over ${settings.smoothing_ms} ms: this is compared`),
      element("li", "", swatch(colour, "dashed"), `${d.label}, patch by patch`),
      ...others.map(([label, , peak], i) => element("li", "", swatch(curves[i + 2].colour, ""), `${label}, at most ${peak.toFixed(2)}`)));
    const at = scores.end_s.findIndex((end_s) => end_s >= patch.end_s - 1e-6);
    setText(byId("why-words"), `At ${patch.end_s.toFixed(2)} s the mean was ${scores.smoothed[at].toFixed(2)}, and at or above the `
      + `threshold of ${settings.threshold.toFixed(2)} in at least ${settings.k} of the last ${settings.n} patches: it fired. `
      + `It does not again for ${settings.refractory_s} s, nor before the mean was below ${settings.off_threshold.toFixed(2)}.`);
  }

  #facts(d, settings, surroundings, verify, armedS, untold) {
    const facts = [
      ["Label", d.label], ["Score", d.score.toFixed(3)], ["Stream", d.stream], ["At", moment(d.at)],
      ["Begins at", `${d.start_s.toFixed(2)} s of the stream`], ["Decided at", `${d.decided_s.toFixed(2)} s`],
      ["Latency", d.latency_ms == null ? null : `${d.latency_ms} ms`],
      ["Model", `${d.model} ${d.version}`], ["Weights", d.digest], ["Backend", d.backend],
      ["Threshold", settings && `${settings.threshold}, off below ${settings.off_threshold}`],
      ["Stands alone", surroundings && settings.isolation && `${settings.isolation.before_ms} ms before it: ${surroundings.margin_db} dB `
        + `quieter (talk: less than ${settings.isolation.margin_db}), speech ${surroundings.speech.toFixed(2)} (talk: at least ${settings.isolation.speech})`],
      ["Looked at again", verify && `${secondLook(verify)}: ${verify.best == null ? "told without it" : "agreed"}`],
      ["Armed by", armedS == null || !settings.armed_by ? null : `${settings.armed_by.label} of ${settings.armed_by.model} at ${armedS.toFixed(2)} s`],
      ["Not told before", untold?.map((u) => `${u.label} at ${u.decided_s.toFixed(2)} s (${u.reason === "not_armed" ? "not armed" : secondLook(u.verify)})`).join(", ")],
      ["In the log", d.durable ? "yes, before it was shown" : "not yet: the disk does not take it"],
    ];
    byId("why-facts").replaceChildren(...facts.filter(([, value]) => value).map(([name, value]) => (
      element("div", "", element("dt", "", name), element("dd", "", value)))));
  }

  #showMark(mark) {
    this.mark = mark;
    for (const name of ["right", "wrong"]) byId(`mark-${name}`).setAttribute("aria-pressed", mark === name);
    setText(byId("mark-state"), mark ? `Marked ${mark}; kept in the log and in its exports.` : "Not marked.");
  }

  async #mark(name) {
    const [id, mark] = [this.#id, this.mark === name ? null : name];
    try {
      await this.client.json(`/v1/detections/${id}/review`, { method: "PUT", body: { mark } });
      if (id === this.#id) this.#showMark(mark);
      this.onMark(id, mark);
    } catch (error) {
      const refused = error.code === 403 ? "Your token may look, but not mark (it needs the admin scope)." : error.message;
      setText(byId("mark-state"), refused);
      this.onFault(error);
    }
  }
}

function secondLook({ model, best, threshold }) {
  return best == null ? `${model} failed or fell behind` : `${model} says ${best.toFixed(2)}, needed ${threshold}`;
}

function swatch(colour, kind) {
  const node = element("span", { className: `swatch ${kind}`, aria: { hidden: true } });
  node.style.borderColor = colour;
  return node;
}
