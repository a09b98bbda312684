// What makes a label fire: sliders that act at once, here and for everybody.

import { byId, element, keyed, setText } from "./dom.js";
import { colourClass, icon } from "./labels.js";

const SENT_MS = 150; // a slider that moves is told this often at most
const FIELDS = [
  { key: "threshold", text: "Threshold", min: 0.01, max: 1, step: 0.01 },
  { key: "off_threshold", text: "Off below", min: 0, max: 1, step: 0.01 },
  { key: "smoothing_ms", text: "Mean over, ms", min: 0, max: 1000, step: 20 },
  { key: "k", text: "Patches above (k)", min: 1, max: 10, step: 1 },
  { key: "n", text: "of the last (n)", min: 1, max: 20, step: 1 },
  { key: "refractory_s", text: "Quiet after, s", min: 0, max: 10, step: 0.1 },
];

/** Of a curve's points by rising threshold the values at `threshold`, between two by a straight line; undefined beyond them. */
function between(curve, threshold) {
  const above = curve.findIndex((point) => point.threshold >= threshold - 1e-9);
  if (above < 0 || (above === 0 && curve[0].threshold > threshold + 1e-9)) return undefined;
  const [low, high] = [curve[Math.max(0, above - 1)], curve[above]];
  const share = low === high ? 0 : (threshold - low.threshold) / (high.threshold - low.threshold);
  const mixed = (key) => low[key] + share * (high[key] - low[key]);
  return { per_hour: mixed("per_hour"), found_share: mixed("found_share") };
}

export class Settings {
  #held = null; // the slider that is being moved: what the server says must not tear it away
  #curves = new Map(); // model -> what was measured at each threshold
  #pending = new Map(); // `model/label` -> changes not yet sent
  #timer = null;

  /** `onFault(error)`; `onChange()`: ask the server what is in force now. */
  constructor(client, onFault, onChange) {
    Object.assign(this, { client, onFault, onChange });
  }

  show(models, mayChange) {
    byId("read-only").hidden = mayChange;
    keyed(byId("settings-models"), models.map((m) => m.name), (i) => this.#model(models[i]), (node, i) => {
      const own = Object.entries(models[i].stream_overrides).map(([name, of]) => `${name} (${Object.keys(of).join(", ")})`);
      setText(node.querySelector(".settings-own"), own.length ? `With settings of their own: ${own.join(", ")}` : "");
      const labels = Object.keys(models[i].detection);
      keyed(node.querySelector(".settings-labels"), labels, (k) => this.#label(models[i].name, labels[k]), (row, k) => {
        this.#refresh(row, models[i], labels[k], mayChange);
      });
    });
  }

  #model(model) {
    return element("section", "panel",
      element("h3", "", `${model.name} `, element("small", "", `${model.version}, ${model.task === "event" ? "sounds" : "words"}`)),
      element("p", "settings-own"),
      element("div", "settings-labels"));
  }

  #label(model, label) {
    const reset = element("button", { type: "button", className: "small reset", aria: { label: `Reset ${label} of ${model}` } }, "Reset");
    reset.addEventListener("click", () => this.#send(model, label, null));
    const [first, ...rest] = FIELDS.map((field) => this.#slider(model, label, field));
    const more = element("details", "", element("summary", { aria: { label: `More settings of ${label}` } }, "More"), ...rest);
    return element("div", { className: `setting ${colourClass(label)}`, aria: { role: "group", label: `${label} of ${model}` } },
      element("span", "label", icon(label), label), first, element("small", { className: "measured", hidden: true }), more, reset);
  }

  #slider(model, label, { key, text, min, max, step }) {
    const input = element("input", { type: "range", min, max, step, data: { setting: key } });
    const shown = element("output", "");
    input.addEventListener("input", () => {
      this.#held = input;
      setText(shown, input.value);
      this.#later(model, label, key, Number(input.value));
      if (key === "threshold") this.#measured(input.closest(".setting"), model);
      this.#takeAlong(model, label, key, input);
    });
    input.addEventListener("change", () => this.#flush());
    return element("label", "slider", element("span", "", text), input, shown);
  }

  /** Beneath the threshold: what it does, where the model's folder says so. */
  #measured(row, model) {
    const said = row.querySelector(".measured");
    const at = between(this.#curves.get(model) ?? [], Number(row.querySelector("[data-setting=threshold]").value));
    said.hidden = !at;
    if (!at) return;
    const rate = at.per_hour < 10 ? at.per_hour.toFixed(1) : at.per_hour.toFixed(0);
    setText(said, `At this threshold: ${rate} an hour of talk, ${(100 * at.found_share).toFixed(0)} % found`);
    said.title = "False accepts of all labels together at this threshold, measured when the model was made, with its own other settings";
  }

  /** k of n: the one that is moved takes the other along. */
  #takeAlong(model, label, key, input) {
    const other = { k: "n", n: "k" }[key];
    const slider = other && input.closest("details").querySelector(`[data-setting=${other}]`);
    const [value, theirs] = [Number(input.value), Number(slider?.value)];
    if (!slider || (key === "k" ? theirs >= value : theirs <= value)) return;
    slider.value = value;
    setText(slider.nextElementSibling, slider.value);
    this.#later(model, label, other, value);
  }

  #refresh(row, model, label, mayChange) {
    for (const input of row.querySelectorAll("input")) {
      input.disabled = !mayChange;
      if (input === this.#held || this.#pending.has(`${model.name}/${label}`)) continue;
      const value = model.detection[label][input.dataset.setting];
      if (value > Number(input.max)) input.max = value;
      if (Number(input.value) !== value) input.value = value;
      setText(input.nextElementSibling, String(+value.toFixed(3)));
      input.setAttribute("aria-valuetext", `${+value.toFixed(3)}`);
    }
    this.#curves.set(model.name, model.curve);
    this.#measured(row, model.name);
    const reset = row.querySelector(".reset");
    reset.hidden = !(label in model.overrides);
    reset.disabled = !mayChange;
  }

  #later(model, label, key, value) {
    const name = `${model}/${label}`;
    this.#pending.set(name, { model, label, changes: { ...this.#pending.get(name)?.changes, [key]: value } });
    this.#timer ??= setTimeout(() => this.#flush(), SENT_MS);
  }

  #flush() {
    clearTimeout(this.#timer);
    this.#timer = null;
    const pending = [...this.#pending.values()];
    for (const { model, label, changes } of pending) this.#send(model, label, changes);
  }

  async #send(model, label, changes) {
    const name = `${model}/${label}`;
    const sent = this.#pending.get(name);
    try {
      await this.client.json(`/v1/models/${model}/detection`, { method: "PATCH", body: { [label]: changes } });
      setText(byId("settings-state"), changes ? `${label}: in force, and kept.` : `${label}: as its model says.`);
    } catch (error) {
      setText(byId("settings-state"), error.code === 403 ? "Your token may look, but not change anything." : error.message);
      this.onFault(error);
    }
    if (this.#pending.get(name) === sent) {
      this.#pending.delete(name);
      this.#held = null;
    }
    this.onChange();
  }
}
