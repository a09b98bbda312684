// How the servers, models, boards, sources and streams are.

import { byId, element, keyed, moment, seconds, setText } from "./dom.js";

const CYCLES = {
  counter: "cycles, counted by the board",
  gvsoc: "cycles of gvsoc, the simulator",
  instructions: "instructions of the emulator: no measure of the chip's cycles",
  modelled: "cycles as modelled, not measured",
};

export class System {
  #was = new Map(); // url -> state

  /** `onServer(row)`: another server has come or gone. */
  constructor(onServer) {
    this.onServer = onServer;
  }

  servers(rows) {
    for (const row of rows) {
      const before = this.#was.get(row.url);
      if (row.url && before !== undefined && before !== row.state) this.onServer(row);
      this.#was.set(row.url, row.state);
    }
    const columns = ["name", "address", "device", "user", "note", "load", "streams"];
    keyed(byId("servers"), rows.map((r, i) => `${i} ${r.url}`), (i) => {
      const link = rows[i].url ? element("a", { href: rows[i].url, rel: "noreferrer" }) : element("span");
      return element("tr", "", element("th", { scope: "row" }, link), ...columns.slice(1).map(() => element("td")),
        element("td", "", element("span", "state")), element("td"));
    }, (tr, i) => {
      const row = rows[i];
      setText(tr.cells[0].firstChild, row.url ? row.name : `${row.name} (this one)`);
      columns.slice(1).forEach((column, k) => setText(tr.cells[k + 1], `${row[column] ?? "–"}`));
      const state = tr.cells[7].firstChild;
      state.dataset.state = row.state;
      setText(state, row.detail ? `${row.state}: ${row.detail}` : row.state);
      setText(tr.cells[8], row.last_seen ? moment(row.last_seen) : "never");
    });
    byId("no-servers").hidden = rows.length > 1;
  }

  status(status) {
    const { audio_s, log } = status;
    const facts = { Version: status.version, "Up for": seconds(status.uptime_s) };
    if (audio_s) { // a token of some streams is not told what is of all
      Object.assign(facts, {
        Engine: `${Math.round(100 * status.engine_load)} % busy`, "Audio received": seconds(audio_s.received),
        "Audio processed": seconds(audio_s.processed), "Audio dropped": `${audio_s.dropped.toFixed(1)} s`, Followers: status.subscribers,
      });
    }
    const used = log.bytes == null ? "" : `, ${(log.bytes / 1e6).toFixed(1)} MB`;
    const wait = log.pending == null ? "" : `, ${log.pending} wait`;
    facts["Event log"] = log.durable ? `on the disk${used}` : `not durable: ${log.fault}${wait}`;
    keyed(byId("facts"), Object.keys(facts), (i) => (
      element("div", "", element("dt", "", Object.keys(facts)[i]), element("dd"))
    ), (node, i) => setText(node.lastChild, String(Object.values(facts)[i])));
    byId("facts").dataset.dropped = (audio_s?.dropped ?? 0) > 0;
    list("sources", status.sources, (s) => [s.name, s.state, [
      s.spec, s.detail, s.restarts ? `${s.restarts} restarts` : "", s.retry_in_s == null ? "" : `next try in ${s.retry_in_s.toFixed(0)} s`,
    ]]);
    list("streams", status.streams, (s) => [s.name, s.connected ? "up" : "away", [
      s.kind === "demo" ? "demo audio, synthetic" : s.kind, `${s.rate} Hz`, `for ${seconds((Date.now() - Date.parse(s.opened_at)) / 1000)}`,
      s.dropped_samples ? `lost ${s.dropped_s.toFixed(1)} s` : "nothing lost",
    ]]);
    this.#boards(status.boards);
  }

  models(models) {
    list("models", models, (m) => [m.name, m.error ? "fault" : m.on_trial ? "on trial" : "up", [
      m.version, `on ${m.backends.join(" and ")}`, `weights ${m.digest}`, `${m.labels.length} classes, every ${m.patch_hop_ms} ms`,
      ...Object.entries(m.disagreements ?? {}).map(([b, d]) => (
        `${b} names another top label in ${d.patches} of ${d.of} patches${d.of ? ` (${(100 * d.patches / d.of).toFixed(2)} %)` : ""}`
        + (d.left_out ? `, ${d.left_out} not compared` : ""))),
      m.verify ? `${m.verify.model} looks again${m.proposed ? `: ${m.proposed.verified} told, ${m.proposed.rejected} not, `
        + `${m.proposed.unverified} told without it` : ""}` : "",
      m.failed_patches ? `${m.failed_patches} patches failed` : "", m.error ?? "",
    ]]);
  }

  #boards(boards) {
    byId("boards-panel").hidden = boards.length === 0;
    keyed(byId("boards"), boards.map((b) => b.name), (i) => (
      element("div", "", element("h3", "", boards[i].name), element("p", "facts"), element("div", "layers"))
    ), (node, i) => {
      const b = boards[i];
      const facts = [b.found, `${b.inferences} inferences`, `${b.repeats} packets repeated`, `${b.resets} resets`, `${b.bad_packets} bad packets`,
        ...Object.entries(b.on_cpu).map(([model, why]) => `${model} runs on the CPU: ${why}`)];
      setText(node.children[1], facts.join(" · "));
      keyed(node.children[2], Object.keys(b.models), (k) => layers(...Object.entries(b.models)[k]));
    });
  }
}

function layers(model, { cycle_source, layers: rows, patch_ms, patch_hop_ms, model_hop_ms, share }) {
  const total = rows.reduce((sum, row) => sum + row.cycles, 0);
  const most = Math.max(...rows.map((row) => row.cycles), 1);
  const body = element("tbody", "", ...rows.map((row) => {
    const bar = element("div", "bar");
    bar.style.transform = `scaleX(${row.cycles / most})`;
    return element("tr", "", element("th", { scope: "row" }, row.layer), element("td", "wide", element("div", "track", bar)),
      element("td", "number", row.cycles.toLocaleString()), element("td", "number", `${(100 * row.cycles / (total || 1)).toFixed(1)} %`));
  }));
  const stretched = patch_hop_ms > model_hop_ms ? `, not ${model_hop_ms} as made for: what the board sustains` : "";
  const caption = `${model}: every ${patch_hop_ms} ms${stretched} (${patch_ms.toFixed(0)} ms a patch, ${(100 * share).toFixed(0)} % of the board's time for one stream); `
    + `${total.toLocaleString()} a patch, ${CYCLES[cycle_source] ?? cycle_source}`;
  return element("table", "", element("caption", "", caption), body);
}

/** A list of named things with a state and facts. */
function list(id, items, describe) {
  const rows = items.map(describe);
  byId(`no-${id}`).hidden = rows.length > 0;
  keyed(byId(id), rows.map(([name]) => name), (i) => (
    element("li", "", element("strong", "", rows[i][0]), element("span", "state"), element("span", "facts"))
  ), (node, i) => {
    const [, state, facts] = rows[i];
    node.children[1].dataset.state = state;
    setText(node.children[1], state);
    setText(node.children[2], facts.filter(Boolean).join(" · "));
  });
}
