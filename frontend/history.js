// What the log keeps: filters, pages, newest first, and the same as a file.

import { byId, element, moment, setText } from "./dom.js";
import { colourClass, icon } from "./labels.js";

const PAGE = 50;
const NEWEST = Number.MAX_SAFE_INTEGER;

export class History {
  #asked = 0;
  #before = NEWEST;
  #empty = true;

  /** `onWhy(id)`; `onFault(error)`. */
  constructor(client, onWhy, onFault) {
    Object.assign(this, { client, onWhy, onFault });
    const form = byId("filters");
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(() => this.load()));
    form.addEventListener("input", () => this.load());
    byId("older").addEventListener("click", () => this.#more());
    for (const kind of ["csv", "jsonl"]) byId(`as-${kind}`).addEventListener("click", () => this.#export(kind));
  }

  /** The names to choose from, beside what the log may hold of others. */
  showNames(streams, labels) {
    byId("known-streams").replaceChildren(...streams.map((name) => element("option", { value: name })));
    byId("known-labels").replaceChildren(...labels.map((name) => element("option", { value: name })));
  }

  /** The first page. */
  async load() {
    this.#before = NEWEST;
    this.#empty = true;
    await this.#more();
  }

  #query() {
    const { stream, label, since, until, score } = byId("filters").elements;
    const query = new URLSearchParams();
    if (stream.value) query.set("stream", stream.value);
    if (label.value) query.set("label", label.value);
    for (const [name, field] of [["since", since], ["until", until]])
      if (field.value) query.set(name, new Date(field.value).toISOString());
    if (Number(score.value) > 0) query.set("min_score", score.value);
    setText(byId("score-shown"), Number(score.value).toFixed(2));
    return query;
  }

  async #more() {
    const asked = ++this.#asked;
    setText(byId("history-state"), "Loading…");
    const query = this.#query();
    query.set("limit", PAGE);
    query.set("before", this.#before);
    try {
      const { items, next } = await this.client.json(`/v1/detections?${query}`);
      if (asked !== this.#asked) return; // the filters have changed since
      if (this.#empty) byId("history-rows").replaceChildren();
      this.#empty = false;
      byId("history-rows").append(...items.map((d) => this.#row(d)));
      this.#before = next;
      byId("older").hidden = next === 0;
      const n = byId("history-rows").childElementCount;
      const none = query.size > 2 ? "Nothing in the log fits." : "The log is empty: nothing was detected yet.";
      setText(byId("history-state"), n ? `${n} shown${next ? ", there are more" : ""}.` : none);
      byId("history-table").hidden = n === 0;
    } catch (error) {
      if (asked !== this.#asked) return;
      setText(byId("history-state"), error.code === 422 ? error.message : `The log cannot be read now: ${error.message}`);
      this.onFault(error);
    }
  }

  /** A mark has changed elsewhere. */
  showMark(id, mark) {
    const cell = document.querySelector(`#history-rows [data-id="${Number(id)}"] .review`);
    if (cell) setText(cell, mark ?? "");
  }

  #row(d) {
    const why = element("button", { type: "button", className: "small", aria: { label: `Why ${d.label} at ${moment(d.at)}?` } }, "Why?");
    const phase = d.phase === "once" ? "" : ` ${d.phase}`;
    const row = element("tr", { className: colourClass(d.label), data: { id: d.id } },
      element("td", "", element("time", { dateTime: d.at }, moment(d.at))),
      element("th", { scope: "row" }, icon(d.label), d.label + phase),
      element("td", "", d.stream),
      element("td", "number", d.score.toFixed(2)),
      element("td", "", d.model),
      element("td", "review", d.review ?? ""),
      element("td", "", why));
    row.addEventListener("click", () => this.onWhy(d.id)); // the button, too
    return row;
  }

  async #export(kind) {
    try {
      const blob = await (await this.client.fetch(`/v1/detections.${kind}?${this.#query()}`)).blob();
      const link = element("a", { href: URL.createObjectURL(blob), download: `detections.${kind}` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    } catch (error) {
      setText(byId("history-state"), `The file cannot be had: ${error.message}`);
      this.onFault(error);
    }
  }
}
