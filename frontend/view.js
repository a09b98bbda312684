// What the page shows. Names and labels come from models and strangers: they enter as text only, never as markup.

const LONGEST_LIST = 100;
const CLIPPED_PEAK = 0.999;

export const byId = (id) => document.getElementById(id);

/** Writes only what changed, so that a live region speaks once. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function element(tag, className, ...children) {
  const node = document.createElement(tag);
  node.className = className;
  node.append(...children); // strings become text nodes
  return node;
}

export function showState(id, state, text) {
  byId(id).dataset.state = state;
  setText(byId(id), text);
}

export function showNotice(text) {
  byId("notice").hidden = !text;
  setText(byId("notice"), text);
}

export function showLevel(peak) {
  const level_db = Math.max(-60, Math.min(0, Math.round(20 * Math.log10(peak || 1e-9))));
  byId("level").setAttribute("aria-valuenow", level_db);
  byId("level-bar").style.transform = `scaleX(${(60 + level_db) / 60})`;
  byId("level").dataset.clipping = peak >= CLIPPED_PEAK;
  byId("clipping").hidden = peak < CLIPPED_PEAK;
  setText(byId("level-text"), peak > 0 ? `${level_db} dB` : "No level");
}

const rows = new Map(); // model -> [{ row, bar, value, threshold }] in the order of its labels
const latest = new Map(); // model -> scores not yet drawn

export function showModels(models) {
  rows.clear();
  byId("scores").replaceChildren(...models.map((model) => {
    const list = element("ul", "scores");
    rows.set(model.name, model.labels.map((label) => {
      const threshold = model.detection[label]?.threshold; // a rest label has none
      const bar = element("div", "bar");
      const value = element("span", "value", "–");
      const track = element("div", "track", bar);
      const row = element("li", threshold === undefined ? "rest" : "", element("span", "label", label), track, value);
      if (threshold !== undefined) {
        const mark = element("div", "mark");
        mark.style.left = `${100 * threshold}%`;
        track.append(mark);
        row.title = `fires at ${threshold}`;
      }
      if (model.experimental_labels.includes(label)) row.append(element("em", "", "experimental"));
      list.append(row);
      return { row, bar, value, threshold };
    }));
    return element("div", "", element("h3", "", `${model.name} `, element("small", "", model.version)), list);
  }));
  const words = models.flatMap((model) => Object.keys(model.detection));
  setText(byId("no-detections"), `Nothing detected yet. Press Listen and try: ${words.join(", ")}.`);
}

export function showScores({ model, values }) {
  if (latest.size === 0) requestAnimationFrame(drawScores);
  latest.set(model, values);
}

export function clearScores() {
  for (const [model, labels] of rows) showScores({ model, values: labels.map(() => 0) });
}

function drawScores() {
  for (const [model, values] of latest)
    rows.get(model)?.forEach(({ row, bar, value, threshold }, i) => {
      bar.style.transform = `scaleX(${values[i]})`;
      setText(value, values[i].toFixed(2));
      row.classList.toggle("above", values[i] >= threshold);
    });
  latest.clear();
}

export function showDetection(d) {
  byId("no-detections").hidden = true;
  const begun = d.phase === "end" && document.querySelector(`#detections [data-id="${Number(d.start_id)}"]`);
  const until = element("span", "until", d.phase === "start" ? "ongoing" : d.phase === "end" ? `until ${d.end_s.toFixed(1)} s` : "");
  if (begun) return begun.querySelector(".until").replaceWith(until);
  const latency = d.replayed ? "replayed" : d.latency_ms === null ? "" : `${Math.round(d.latency_ms)} ms latency`;
  const at = element("time", "", new Date(d.at).toLocaleTimeString());
  at.dateTime = d.at;
  const facts = [d.stream, d.model, `${d.start_s.toFixed(1)} s`, latency].filter(Boolean).join(" · ");
  const head = element("div", "head", element("strong", "", d.label), until, element("span", "score", d.score.toFixed(2)), at);
  const card = element("li", "card", head, element("div", "facts", facts));
  card.dataset.id = d.id;
  byId("detections").prepend(card);
  while (byId("detections").childElementCount > LONGEST_LIST) byId("detections").lastElementChild.remove();
}

export function showStreams(streams) {
  const heard = streams.map((s) => (s.kind === "websocket" && !s.connected ? `${s.name} (away)` : s.name));
  const text = heard.length > 3 ? `${heard.length} streams` : heard.join(", ");
  showState("listening", heard.length ? "live" : "off", heard.length ? `Listening: ${text}` : "Nothing is listening");
  byId("no-streams").hidden = streams.length > 0;
  byId("streams").replaceChildren(...streams.map((s) => {
    const lost = s.dropped_samples > 0 ? `lost ${(s.dropped_samples / s.rate).toFixed(1)} s` : "";
    const kind = s.kind === "demo" ? "demo audio, synthetic" : s.kind;
    const facts = [kind, s.connected ? "" : "waiting for its client", `${s.rate} Hz`, lost].filter(Boolean).join(" · ");
    return element("li", "", element("strong", "", s.name), element("span", "facts", facts));
  }));
}
