// What is really said in the demo audio, under the chart: what is missed is seen as missed.

import { LEFT, RIGHT } from "./charts.js";
import { byId, element, keyed, setText } from "./dom.js";

export class Said {
  #items = null; // of one round; null: not asked yet
  #seconds = 1; // of one round
  #shown = false;

  /** `span_s`: what the chart above shows. */
  constructor(client, span_s) {
    Object.assign(this, { client, span_s });
    byId("said-words").style.margin = `0 ${RIGHT}px 0 ${LEFT}px`;
  }

  /** `kind` of the stream that is looked at: only the demo audio is known word by word. */
  async of(kind) {
    this.#shown = kind === "demo";
    byId("said").hidden = !this.#shown;
    if (!this.#shown || this.#items) return;
    this.#items = [];
    try {
      const { items, seconds } = await this.client.json("/v1/demo");
      [this.#items, this.#seconds] = [items, seconds];
    } catch {
      this.#items = null; // at the next look
    }
  }

  /** The chart ends at `now_s` of the stream, which plays the demo audio round and round. */
  draw(now_s) {
    if (!this.#shown || !this.#items) return;
    const from_s = now_s - this.span_s;
    const seen = [];
    for (let round = Math.max(0, Math.floor(from_s / this.#seconds)); round * this.#seconds < now_s; round += 1) {
      for (const { label, start_s, end_s } of this.#items) {
        const at_s = round * this.#seconds + start_s;
        if (at_s < now_s && at_s + end_s - start_s > from_s) seen.push({ label, at_s, length_s: end_s - start_s });
      }
    }
    keyed(byId("said-words"), seen.map((s) => `${s.label} ${s.at_s.toFixed(2)}`), () => element("span", ""), (span, i) => {
      const { label, at_s, length_s } = seen[i];
      const first = Math.max(0, (at_s - from_s) / this.span_s);
      setText(span, label);
      span.style.left = `${100 * first}%`;
      span.style.width = `${100 * (Math.min(1, (at_s + length_s - from_s) / this.span_s) - first)}%`;
    });
  }
}
