// What the page says to the server: JSON over HTTP, sockets, and the feed of detections.

const KEPT_DETECTIONS = 50;

let token = sessionStorage.getItem("token"); // this tab only; never in a URL

export function useToken(text) {
  token = text;
  sessionStorage.setItem("token", text);
}

export async function getJson(path) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const response = await fetch(path, { headers, signal: AbortSignal.timeout(5000) });
  if (!response.ok) throw Object.assign(new Error(`${path}: HTTP ${response.status}`), { status: response.status });
  return response.json();
}

export function openSocket(path, query) {
  const url = new URL(`${path}?${new URLSearchParams(query)}`, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  const socket = new WebSocket(url);
  if (token) socket.addEventListener("open", () => socket.send(JSON.stringify({ type: "auth", token })));
  return socket;
}

/** How long to wait before the next attempt: 0.25 s doubling to 10 s, with jitter so that tabs do not return in step. */
export const backoffMs = (attempt) => Math.min(10000, 500 * 2 ** attempt) * (0.5 + Math.random() / 2);

/** All streams' detections, each once: after a lost connection it resumes behind the last id it has seen. */
export class DetectionFeed {
  #attempt = 0;
  #lastId = null;
  #logId = null;
  #seen = new Set(); // uids: an id starts again in a new log, a uid does not
  #socket = null;
  #timer = null;

  /** `on`: detection(message), notice(text), state("live" | "wait" | "token" | "refused", text). */
  constructor(on) {
    this.on = on;
  }

  connect() {
    clearTimeout(this.#timer);
    const socket = openSocket("/v1/detections", this.#lastId === null ? {} : { after: this.#lastId });
    const old = this.#socket;
    this.#socket = socket; // before close(): what an old socket still says is ignored
    old?.close();
    socket.onmessage = ({ data }) => socket === this.#socket && this.#receive(JSON.parse(data));
    socket.onclose = ({ code, reason }) => socket === this.#socket && this.#closed(code, reason);
  }

  #receive(message) {
    if (message.type === "hello") {
      this.#attempt = 0;
      if (message.log_id !== this.#logId) { // first visit, or the server began a new log: show its latest first
        this.#logId = message.log_id;
        this.#lastId = Math.max(0, message.last_id - KEPT_DETECTIONS);
        if (message.last_id > 0) return this.connect();
      }
      this.on.state("live", "Connected");
    } else if (message.type === "detection") {
      this.#lastId = message.id;
      if (this.#seen.has(message.uid)) return;
      this.#seen.add(message.uid);
      if (this.#seen.size > 10 * KEPT_DETECTIONS) this.#seen.delete(this.#seen.values().next().value);
      this.on.detection(message);
    } else if (message.type === "log_gap") {
      this.#lastId = Math.max(this.#lastId, message.to);
      this.on.notice(`Detections ${message.from} to ${message.to} are no longer kept (${message.reason}).`);
    } else if (message.type === "error") {
      this.on.notice(message.message);
    }
  }

  #closed(code, reason) {
    if (code === 4401) return this.on.state("token", "Token needed");
    if (code === 4403) return this.on.state("refused", `Refused: ${reason || "forbidden"}`);
    this.on.state("wait", "Connection lost, reconnecting…");
    this.#timer = setTimeout(() => this.connect(), backoffMs(this.#attempt++));
  }
}
