// Detections as they come: cards, and where the user asks for it a sound and a notification of the browser.

import { byId, clock, element, keyed, setText } from "./dom.js";
import { colourClass, icon, isExperimental } from "./labels.js";

const LONGEST_LIST = 100;
const REMEMBERED = 1000;
const LATE_MS = 10000; // a detection that is told later than this after it happened makes no sound

export class Alerts {
  #cards = []; // newest first
  #context = null;
  #seen = new Map(); // uid -> true: an id starts again in a new log, a uid does not
  #options = { sound: false, notify: false, muted: false, ...JSON.parse(localStorage.getItem("alerts") ?? "{}") };

  /** `onWhy(id)`: somebody wants to know why. */
  constructor(onWhy) {
    this.onWhy = onWhy;
    if (!("Notification" in window) || Notification.permission !== "granted") this.#options.notify = false;
    byId("sound").addEventListener("click", () => this.#toggle("sound"));
    byId("notify").addEventListener("click", () => this.#toggle("notify"));
    byId("mute").addEventListener("click", () => this.#toggle("muted"));
    byId("try").addEventListener("click", () => this.#try());
    this.#show();
  }

  /** Whether it is new. */
  take(d) {
    if (this.#seen.has(d.uid)) return false;
    this.#seen.set(d.uid, true);
    if (this.#seen.size > REMEMBERED) this.#seen.delete(this.#seen.keys().next().value);
    const begun = d.phase === "end" && this.#cards.find((card) => card.id === d.start_id);
    if (begun) begun.end = d;
    else this.#add({ id: d.id, key: d.uid, d, end: d.phase === "end" ? d : null });
    this.#draw();
    if (d.phase !== "end" && Date.now() - Date.parse(d.at) < LATE_MS) this.#alert(d.label, `${d.stream}, ${clock(d.at)}`);
    return true;
  }

  /** Tell of something else that people must learn at once. */
  tell(title, text) {
    this.#alert(title, text);
  }

  #add(card) {
    this.#cards.unshift(card);
    if (this.#cards.length > LONGEST_LIST) this.#cards.pop();
  }

  #draw() {
    byId("no-detections").hidden = this.#cards.length > 0;
    const cards = this.#cards;
    keyed(byId("detections"), cards.map((c) => c.key), (i) => this.#card(cards[i]), (node, i) => {
      const { d, end } = cards[i];
      const text = end ? `until ${end.end_s.toFixed(1)} s` : d.phase === "start" ? "ongoing" : "";
      setText(node.querySelector(".until"), text);
    });
  }

  #card({ d, example }) {
    const latency = d.replayed ? "replayed" : d.latency_ms === null ? "" : `${Math.round(d.latency_ms)} ms latency`;
    const facts = [example ? "example, not a detection" : d.stream, d.model, `${d.start_s.toFixed(1)} s`, latency];
    const begun = d.start_at ?? d.at; // an end whose start is not shown
    const time = element("time", { dateTime: begun }, clock(begun));
    const doubt = isExperimental(d.label) ? "experimental" : "";
    const head = element("div", "head", icon(d.label), element("strong", "", d.label), element("em", "", doubt), element("span", "until"),
      element("span", "score", d.score.toFixed(2)), time);
    const foot = element("div", "facts", element("span", "", facts.filter(Boolean).join(" · ")));
    const node = element("li", `card ${colourClass(d.label)}`, head, foot);
    if (!example) {
      const why = element("button", { type: "button", className: "small", aria: { label: `Why ${d.label} at ${clock(begun)}?` } }, "Why?");
      foot.append(why); // for the keyboard; a mouse may hit the card anywhere
      node.addEventListener("click", () => this.onWhy(d.id));
    }
    return node;
  }

  #try() {
    const d = { id: null, label: "yes", stream: "example", model: "", start_s: 0, score: 0.97, phase: "once", latency_ms: null };
    this.#add({ id: null, key: `example-${performance.now()}`, d: { ...d, at: new Date().toISOString() }, example: true });
    this.#draw();
    this.#alert("yes", "An example, not a detection", true);
  }

  async #toggle(name) {
    const on = !this.#options[name];
    if (name === "notify" && on) {
      const answer = "Notification" in window ? await Notification.requestPermission() : "denied";
      if (answer !== "granted") {
        const why = window.isSecureContext ? "Allow them in the address bar first." : "They need HTTPS or localhost.";
        return this.#show(`The browser refuses notifications. ${why}`);
      }
    }
    if (name === "sound" && on) this.#context ??= new AudioContext(); // only a click may start it
    this.#options[name] = on;
    localStorage.setItem("alerts", JSON.stringify(this.#options));
    this.#show();
  }

  #show(fault = "") {
    const { sound, notify, muted } = this.#options;
    for (const [id, on] of [["sound", sound], ["notify", notify], ["mute", muted]]) byId(id).setAttribute("aria-pressed", on);
    const means = [sound && "a sound", notify && "a notification"].filter(Boolean).join(" and ");
    const text = muted ? "Muted: cards only." : means ? `Cards, ${means}.` : "Cards only.";
    setText(byId("alert-state"), fault || text);
  }

  #alert(title, text, asked = false) {
    const { sound, notify, muted } = this.#options;
    if (muted && !asked) return;
    if (sound || asked) this.#beep(title);
    if (notify) new Notification(title, { body: text, tag: title });
  }

  /** Two short tones, their pitch by the label, so that one can tell them apart without looking. */
  #beep(label) {
    this.#context ??= new AudioContext();
    const context = this.#context;
    if (context.state === "suspended") context.resume().catch(() => {});
    const sum = [...label].reduce((total, letter) => total + letter.codePointAt(0), 0);
    for (const [i, step] of [0, 4].entries()) {
      const [at, gain] = [context.currentTime + 0.12 * i, context.createGain()];
      const tone = new OscillatorNode(context, { frequency: 440 * 2 ** (((sum % 12) + step) / 12) });
      gain.gain.setValueAtTime(0, at);
      gain.gain.linearRampToValueAtTime(0.15, at + 0.01);
      gain.gain.exponentialRampToValueAtTime(0.001, at + 0.11);
      tone.connect(gain).connect(context.destination);
      tone.start(at);
      tone.stop(at + 0.12);
    }
  }
}
