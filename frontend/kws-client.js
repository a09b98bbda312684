// A client of kws-serve for browsers and other places with WebSocket and fetch: the twin of kws_serve.client.

const FIRST_RETRY_MS = 250;
const LAST_RETRY_MS = 10000;
const ANSWER_MS = 10000;
const FINAL = new Set([4400, 4401, 4403]); // close codes that another try would meet again
const TOO_MUCH = 1008; // close code: too much that is not audio
const REFUSED = 4400; // the service's own close codes begin here
const LONGEST_MESSAGE_BYTES = 128 * 1024;
const SAMPLES = { s16le: Int16Array, f32le: Float32Array };

/** What a sender keeps for one who does not iterate: 80 s of scores of a model at 20 ms. */
export const INBOX_MESSAGES = 4096;

/** What a sender keeps for a service that has to be told again. */
export const RING_S = 10;

/**
 * @typedef {object} Detection A label that fired. Times in s since the stream's epoch began.
 * @property {"detection"} type
 * @property {number} id
 * @property {string} uid
 * @property {string} stream
 * @property {string} epoch
 * @property {string} model
 * @property {string} version
 * @property {string} digest
 * @property {string} backend
 * @property {string} label
 * @property {number} score
 * @property {"once" | "start" | "end"} phase
 * @property {number} start_sample
 * @property {number} start_s
 * @property {number} decided_s
 * @property {number | null} [start_id]
 * @property {number | null} [end_s]
 * @property {string | null} [start_at] of an end: the wall time of start_s
 * @property {string} at the wall time of start_s; of an end that of end_s
 * @property {number | null} latency_ms
 * @property {boolean} [replayed]
 * @property {boolean} durable
 * @property {true | null} [verified] of models with a second one that looks again; null: that one failed
 * @property {"right" | "wrong" | null} [review]
 */

/**
 * @typedef {object} LogGap Ids that the log no longer has.
 * @property {"log_gap"} type
 * @property {number} from
 * @property {number} to
 * @property {string} reason
 */

/**
 * The other messages of the service, and what it is told.
 * @typedef {{ type: "hello", log_id: string, last_id: number, reset: boolean, version: string }} Hello
 * @typedef {{ type: "ready", stream: string, epoch: string, rate: number, channels: number, models: string[],
 *   next_sample: number }} Ready
 * @typedef {{ type: "ack", sample: number }} Ack
 * @typedef {{ type: "scores", model: string, end_sample: number, end_s: number, values: number[] }} Scores
 * @typedef {{ type: "gap", stream: string, first_sample: number, n: number, reason: string }} Gap
 * @typedef {{ type: "done", samples: number }} Done
 * @typedef {{ type: "error", code: number, message: string }} ErrorMessage
 * @typedef {{ type: "live", stream: string, epoch: string, rate: number, kind: string }} Live
 * @typedef {{ type: "waiting", stream: string }} Waiting
 * @typedef {{ type: "frames", first_s: number, end_s: number, values: (number | null)[][] }} Frames
 * @typedef {{ type: "level", peak: number }} Level
 * @typedef {{ type: "skipped", n: number }} Skipped
 * @typedef {{ type: "auth", token: string }} Auth
 * @typedef {{ type: "resume", epoch: string, first_sample: number }} Resume
 * @typedef {{ type: "end" }} End
 */

/** The service refused: its close code (or HTTP status) and message. */
export class ServiceError extends Error {
  /**
   * @param {number} code
   * @param {string} message
   */
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** A service. Dispatches "connection" events: `detail` is { state: "live", last_id } or { state: "lost" }. */
export class KwsClient extends EventTarget {
  #base;

  /**
   * @param {string | URL} url http:// or https://
   * @param {string | null} [token] where the service wants one; it never enters a URL
   */
  constructor(url, token = null) {
    super();
    this.#base = new URL(url);
    this.token = token;
    this.logId = /** @type {string | null} */ (null); // of the service's log, once it is known
  }

  /**
   * JSON over HTTP, all of it within 10 s.
   * @param {string} path
   * @param {{ method?: string, body?: unknown }} [options]
   * @returns {Promise<any>}
   * @throws {ServiceError} with the HTTP status
   */
  async json(path, options = {}) {
    return (await this.#ask(path, options, AbortSignal.timeout(ANSWER_MS))).json();
  }

  /**
   * An answer that begins within 10 s; its body takes as long as it takes.
   * @param {string} path
   * @param {{ method?: string, body?: unknown }} [options]
   * @returns {Promise<Response>}
   * @throws {ServiceError} with the HTTP status
   */
  async fetch(path, options = {}) {
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(new DOMException("the service does not answer", "TimeoutError")), ANSWER_MS);
    try {
      return await this.#ask(path, options, late.signal);
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * @param {string} path
   * @param {{ method?: string, body?: unknown }} options
   * @param {AbortSignal} signal
   * @returns {Promise<Response>}
   * @throws {ServiceError} with the HTTP status
   */
  async #ask(path, { method = "GET", body }, signal) {
    /** @type {Record<string, string>} */
    const headers = this.token ? { Authorization: `Bearer ${this.token}` } : {};
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const init = { method, headers, body: body === undefined ? undefined : JSON.stringify(body) };
    const response = await fetch(this.#at(path), { ...init, signal });
    if (response.ok) return response;
    const found = await response.json().catch(() => ({}));
    throw new ServiceError(response.status, found.message ?? `${path}: HTTP ${response.status}`);
  }

  /**
   * A socket that presents the token.
   * @param {string} path
   * @param {Record<string, string | number | null | undefined>} query
   * @returns {Socket}
   */
  socket(path, query) {
    const url = this.#at(path);
    for (const [key, value] of Object.entries(query)) if (value != null) url.searchParams.set(key, String(value));
    url.protocol = url.protocol.replace("http", "ws");
    return new Socket(url, this.token);
  }

  /** @param {string} path */
  #at(path) {
    return new URL(path.replace(/^\//, ""), this.#base);
  }

  /**
   * Detections as they come, each once, through lost connections; with `after`, first what is kept after it. `log_id`: the
   * log that `after` is of, kept from an earlier `logId`; of another one all is told.
   * @param {{ after?: number | null, log_id?: string | null, stream?: string, label?: string, signal?: AbortSignal }} [options]
   * @returns {AsyncGenerator<Detection | LogGap>}
   * @throws {ServiceError} where trying again is useless
   */
  async *detections({ after = null, log_id = null, stream, label, signal } = {}) {
    let logId = null;
    let attempt = 0;
    while (!signal?.aborted) {
      const socket = this.socket("/v1/detections", { after, log_id, stream, label });
      const leave = () => socket.close();
      signal?.addEventListener("abort", leave, { once: true });
      let fault = "";
      let live = false;
      let other = false;
      try {
        for await (const message of socket) {
          if (message.type === "hello") {
            other = after !== null && logId !== null && logId !== message.log_id;
            logId = this.logId = message.log_id;
            log_id &&= logId;
            if (other) { // another log: its ids begin anew
              after = 0;
              break;
            }
            after ??= message.last_id;
            live = true;
            this.dispatchEvent(new CustomEvent("connection", { detail: { state: "live", last_id: message.last_id } }));
          } else if (message.type === "error") {
            fault = message.message;
          } else {
            after = message.type === "log_gap" ? message.to : message.id;
            yield message;
          }
        }
      } finally {
        socket.close();
        signal?.removeEventListener("abort", leave);
      }
      if (FINAL.has(socket.code)) throw new ServiceError(socket.code, fault || socket.reason || "refused");
      if (signal?.aborted) return;
      if (other) continue;
      if (live || attempt === 0) this.dispatchEvent(new CustomEvent("connection", { detail: { state: "lost" } }));
      if (live && !sentAway(socket.code)) attempt = 0;
      await pause(attempt++);
    }
  }

  /**
   * A stream to feed.
   * @param {string} stream
   * @param {{ rate?: number, format?: "s16le" | "f32le", channels?: number, channel?: number, models?: string[],
   *   scores?: boolean, pace?: "live" | "free" }} [options] pace: live, as time goes, or free, as fast as the service has room
   * @returns {Promise<AudioSender>}
   * @throws {ServiceError} refused, now or for good
   */
  async audio(stream, { rate = 16000, format = "s16le", channels = 1, channel = 0, models, scores = false, pace } = {}) {
    const query = { stream, rate, format, channels, channel, models: models?.join(","), scores: Number(scores), pace };
    const sender = new AudioSender(() => this.socket("/v1/audio", query), rate, format, channels);
    await sender.open();
    return sender;
  }
}

/** A WebSocket as an async iterable of JSON messages, which ends when the connection does. */
export class Socket {
  /** Close code and reason, once closed. */
  code = 0;
  reason = "";
  /** @type {any[]} */
  #inbox = [];
  #wake = () => {};
  #socket;

  /**
   * @param {URL} url
   * @param {string | null} token
   */
  constructor(url, token) {
    this.#socket = new WebSocket(url);
    /** Resolves once messages can be sent, or never will be. */
    this.opened = new Promise((resolve) => {
      this.#socket.onopen = () => {
        if (token) this.send(JSON.stringify({ type: "auth", token }));
        resolve(undefined);
      };
      this.#socket.addEventListener("close", resolve);
    });
    this.#socket.onmessage = ({ data }) => {
      this.#inbox.push(JSON.parse(data));
      this.#wake();
    };
    this.#socket.onclose = ({ code, reason }) => {
      this.code = code;
      this.reason = reason;
      this.#wake();
    };
  }

  /** @returns {Promise<any>} the next message; null once the connection is closed */
  async next() {
    while (this.#inbox.length === 0) {
      if (this.code) return null;
      await new Promise((resolve) => (this.#wake = () => resolve(undefined)));
    }
    return this.#inbox.shift();
  }

  async *[Symbol.asyncIterator]() {
    for (let message = await this.next(); message !== null; message = await this.next()) yield message;
  }

  /** @param {string | BufferSource} data */
  send(data) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(data);
  }

  /** Whether messages can be sent. */
  get open() {
    return this.#socket.readyState === WebSocket.OPEN;
  }

  close() {
    this.#socket.close();
  }
}

/**
 * One open stream: send samples, iterate what the service says of them.
 *
 * Keeps the last 10 s, and all that the service has not acknowledged. Where the connection breaks, or the service
 * restarts or sends the stream away for now (4429 and the like), it connects again, with growing pauses, and sends on
 * from the sample that the service expects: nothing is lost and nothing told twice. A `send` waits while 10 s are
 * unacknowledged: it never drops anything itself.
 */
export class AudioSender {
  /** What the service said when the stream was opened. @type {Ready | null} */
  ready = null;
  #acked = 0; // in samples, as all below
  #attempt = 0; // tries since a connection last stood
  #connect;
  #ended = false;
  #format;
  #inbox = /** @type {any[]} */ ([]);
  #skipped = 0;
  #kept;
  #largest;
  #next = 0; // after the last one that was given to us
  #ring = /** @type {{ first: number, data: Uint8Array<ArrayBuffer> }[]} */ ([]); // the last `#kept` samples
  #sampleBytes;
  #socket = /** @type {Socket | null} */ (null);
  #stopped = false;
  #waiting = new Set();
  #wanted = 0; // what the service expects

  /**
   * @param {() => Socket} connect
   * @param {number} rate
   * @param {"s16le" | "f32le"} format
   * @param {number} channels
   */
  constructor(connect, rate, format, channels) {
    this.#connect = connect;
    this.#format = format;
    this.#sampleBytes = channels * SAMPLES[format].BYTES_PER_ELEMENT;
    this.#largest = Math.max(1, Math.min(rate >> 1, Math.floor(LONGEST_MESSAGE_BYTES / this.#sampleBytes)));
    this.#kept = RING_S * rate;
    this.rate = rate;
  }

  /** Connect for the first time. @throws {ServiceError} */
  async open() {
    this.#socket = this.#connect();
    const answer = await this.#socket.next();
    if (answer?.type === "ready") {
      this.ready = answer;
      this.#read(); // goes on by itself
    } else {
      this.#socket.close();
      throw new ServiceError(answer?.code ?? (this.#socket.code || 1006), answer?.message ?? "nobody answers");
    }
  }

  /** Whether what is sent now leaves at once: the connection stands. */
  get connected() {
    return !this.#stopped && this.#socket !== null && this.#socket.open;
  }

  /** Seconds of audio that the service has not acknowledged. */
  get unacknowledged_s() {
    return (this.#next - this.#acked) / this.rate;
  }

  /**
   * Samples (interleaved where there are several channels), or their bytes.
   * @param {Int16Array | Float32Array | ArrayBuffer} samples
   * @throws {ServiceError} where the service refuses the stream; TypeError for samples of another format
   */
  async send(samples) {
    if (!(samples instanceof ArrayBuffer || samples instanceof SAMPLES[this.#format]))
      throw new TypeError(`samples: found ${samples?.constructor?.name}, wanted ${SAMPLES[this.#format].name}`);
    const bytes = samples instanceof ArrayBuffer
      ? new Uint8Array(samples)
      : new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength);
    if (bytes.length % this.#sampleBytes)
      throw new TypeError(`samples: found ${bytes.length} bytes, wanted a multiple of ${this.#sampleBytes}`);
    for (let at = 0; at < bytes.length; at += this.#largest * this.#sampleBytes) {
      const data = bytes.slice(at, at + this.#largest * this.#sampleBytes);
      const n = data.length / this.#sampleBytes;
      while (this.#next + n - this.#acked > this.#kept && this.#next > this.#acked && !this.#stopped)
        await new Promise((resolve) => this.#waiting.add(resolve));
      if (this.#stopped) throw this.#inbox.find((found) => found instanceof ServiceError) ?? new ServiceError(1000, "ended");
      this.#ring.push({ first: this.#next, data });
      this.#next += n;
      while (this.#end(this.#ring[0]) < this.#next - this.#kept) this.#ring.shift();
      this.#flush();
    }
  }

  /** No more samples: the service finishes and sends `done`; go on iterating until then. */
  end() {
    this.#ended = true;
    this.#flush();
  }

  /** Leave at once; what is not acknowledged may be lost. */
  close() {
    this.#stop(new ServiceError(1000, "closed"));
  }

  /**
   * What the service says, acknowledgements aside; ends with `done`. `skipped` tells how many were left out because nobody
   * took them: the oldest of more than INBOX_MESSAGES.
   * @returns {AsyncGenerator<Detection | Scores | Gap | Skipped | Done>}
   */
  async *[Symbol.asyncIterator]() {
    for (;;) {
      while (this.#inbox.length === 0) await new Promise((resolve) => this.#waiting.add(resolve));
      if (this.#inbox[0] instanceof ServiceError) throw this.#inbox[0]; // stays, for whoever asks again
      if (this.#skipped) {
        const n = this.#skipped;
        this.#skipped = 0;
        yield { type: "skipped", n };
        continue;
      }
      const message = this.#inbox.shift();
      yield message;
      if (message.type === "done") return;
    }
  }

  /** @param {any} message */
  #keep(message) {
    this.#inbox.push(message);
    if (this.#inbox.length > INBOX_MESSAGES) {
      this.#inbox.shift();
      this.#skipped++;
    }
  }

  /** @param {{ first: number, data: Uint8Array<ArrayBuffer> }} part */
  #end(part) {
    return part.first + part.data.length / this.#sampleBytes;
  }

  #wake() {
    for (const resolve of this.#waiting) resolve(undefined);
    this.#waiting.clear();
  }

  /** @param {unknown} last what whoever iterates gets last */
  #stop(last) {
    if (!this.#stopped) this.#inbox.push(last);
    this.#stopped = true;
    this.#socket?.close();
    this.#wake();
  }

  /** Send what the service lacks. */
  #flush() {
    const socket = this.#socket;
    if (!socket?.open || this.#stopped || this.ready === null) return;
    for (const part of this.#ring)
      if (this.#end(part) > this.#wanted) {
        socket.send(part.data.subarray(Math.max(0, this.#wanted - part.first) * this.#sampleBytes));
        this.#wanted = this.#end(part);
      }
    if (this.#ended) socket.send('{"type":"end"}');
  }

  async #read() {
    while (!this.#stopped) {
      const message = await /** @type {Socket} */ (this.#socket).next();
      if (message === null) await this.#again();
      else if (message.type === "done") this.#stop(message);
      else if (message.type === "error") {
        if (FINAL.has(message.code)) this.#stop(new ServiceError(message.code, message.message)); // else the close follows
      }
      else if (message.type === "ack") this.#acked = message.sample;
      else this.#keep(message);
      this.#wake();
    }
  }

  /** Connect again and find out where to go on. */
  async #again() {
    const { code, reason } = /** @type {Socket} */ (this.#socket);
    if (FINAL.has(code) || code === 1000)
      return this.#stop(new ServiceError(code, reason || "the connection is gone"));
    if (!sentAway(code)) this.#attempt = 0;
    while (!this.#stopped) {
      await pause(this.#attempt++);
      if (this.#stopped) return;
      const socket = this.#connect();
      const oldest = this.#ring[0]?.first ?? this.#next;
      await socket.opened;
      socket.send(JSON.stringify({ type: "resume", epoch: this.ready.epoch, first_sample: oldest }));
      const answer = await socket.next();
      if (answer?.type === "ready") return this.#resume(socket, answer, oldest);
      socket.close();
      const refusal = answer?.code ?? socket.code;
      if (FINAL.has(refusal)) return this.#stop(new ServiceError(refusal, answer?.message ?? socket.reason));
    }
  }

  /**
   * @param {Socket} socket
   * @param {any} answer
   * @param {number} oldest
   */
  #resume(socket, answer, oldest) {
    this.#socket = socket;
    if (answer.epoch === this.ready.epoch) {
      this.#wanted = this.#acked = answer.next_sample;
    } else { // the log knows nothing of us, so nothing was found yet: the ring begins the stream anew
      this.#ring = this.#ring.map(({ first, data }) => ({ first: first - oldest, data }));
      this.#next -= oldest;
      this.#wanted = this.#acked = 0;
    }
    this.ready = answer;
    this.#flush();
  }
}

/** Whether the service has ended a connection for what its client did or wanted. */
function sentAway(/** @type {number} */ code) {
  return code === TOO_MUCH || code >= REFUSED;
}

/** Waits before the next attempt, 0.25 s doubling to 10 s, with jitter so that clients do not return in step. */
function pause(/** @type {number} */ attempt) {
  const wait_ms = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** attempt) * (0.5 + Math.random() / 2);
  return new Promise((resolve) => setTimeout(resolve, wait_ms));
}
