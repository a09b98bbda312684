// This browser's microphone as one live stream of the server: capture, WS /v1/audio, and what went wrong in plain words.

import { backoffMs, openSocket } from "./connection.js";

const LONGEST_LAG_S = 2; // of audio waiting in the browser; beyond it audio is skipped, said and never joined
const SILENT_PEAK = 0.0002;
const SILENT_MESSAGES = 50; // of 100 ms
const OFF = "Off. Audio goes to this server only and is not stored.";
const FAULTS = {
  NotAllowedError: "The browser was told not to use the microphone. Allow it in the address bar, then press Listen.",
  NotFoundError: "No microphone was found. Plug one in, then press Listen.",
  NotReadableError: "The microphone is used by another program or switched off by the system.",
};

export class Microphone {
  #attempt = 0;
  #capture = null; // { media, context }
  #lagging = false;
  #name = null;
  #ready = false;
  #silent = 0;
  #socket = null;
  #timer = null;

  /** `on`: level(peak in [0, 1]), scores(message), state(name, text), notice(text), token(). */
  constructor(on) {
    this.on = on;
  }

  get running() {
    return this.#capture !== null;
  }

  async start() {
    if (!window.isSecureContext)
      return this.on.state("insecure", "A browser gives a microphone only to pages on HTTPS or localhost.");
    this.on.state("asking", "Asking the browser for the microphone…");
    const context = new AudioContext(); // its own rate: the server resamples once
    let media;
    try {
      const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
      media = await navigator.mediaDevices.getUserMedia({ audio });
      await Promise.all([context.resume(), context.audioWorklet.addModule("microphone-worklet.js")]);
    } catch (error) {
      media?.getTracks().forEach((track) => track.stop());
      context.close();
      return this.on.state("fault", FAULTS[error.name] ?? `The microphone did not start: ${error.message}`);
    }
    const options = { channelCount: 1, channelCountMode: "explicit", channelInterpretation: "speakers" };
    const worklet = new AudioWorkletNode(context, "microphone", options);
    worklet.port.onmessage = ({ data }) => this.#send(data);
    context.createMediaStreamSource(media).connect(worklet).connect(context.destination); // silent: it keeps time
    const [track] = media.getAudioTracks();
    track.onended = () => this.stop("fault", "The microphone was unplugged. Plug it in, then press Listen.");
    track.onmute = () => this.on.state("muted", "The microphone is muted by the system: nothing is heard.");
    track.onunmute = () => this.#connected();
    this.#capture = { media, context };
    this.#name = newName();
    this.#connect();
  }

  /** Ends the stream politely: the server flushes what it has and frees the name. */
  stop(state = "off", text = OFF) {
    clearTimeout(this.#timer);
    this.#capture?.media.getTracks().forEach((track) => track.stop());
    this.#capture?.context.close();
    this.#capture = null;
    const socket = this.#socket;
    if (this.#ready) socket.send('{"type":"end"}');
    else socket?.close();
    setTimeout(() => socket?.close(), 3000); // a server that never says done
    this.#ready = false;
    this.on.level(0);
    this.on.state(state, text);
  }

  #connect() {
    clearTimeout(this.#timer);
    const rate = this.#capture.context.sampleRate;
    const query = { stream: this.#name, rate, format: "s16le", channels: 1, scores: 1 };
    const socket = openSocket("/v1/audio", query);
    let fault = "";
    this.#socket = socket;
    this.on.state("wait", "Connecting the microphone…");
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.type === "scores") this.on.scores(message);
      else if (message.type === "gap") this.on.notice(`The server skipped ${message.n} samples (${message.reason}).`);
      else if (message.type === "error") fault = message.message;
      else if (message.type === "ready" && this.running && socket === this.#socket) {
        this.#ready = true;
        this.#attempt = this.#silent = 0;
        this.#connected();
      }
    };
    socket.onclose = ({ code, reason }) => {
      if (socket !== this.#socket || !this.running) return;
      this.#ready = this.#lagging = false;
      if (code === 4401) this.on.token();
      if ([4400, 4401, 4403].includes(code)) return this.stop("fault", `Refused: ${fault || reason || code}`);
      if (code === 4409) this.#name = newName();
      this.on.state("wait", `Connection lost, reconnecting…${fault && ` (${fault})`}`);
      this.#timer = setTimeout(() => this.#connect(), code === 1000 ? 0 : backoffMs(this.#attempt++));
    };
  }

  #connected() {
    if (this.#ready) this.on.state("live", `Listening as ${this.#name}`);
  }

  #send({ pcm, peak }) {
    if (!this.running) return;
    this.on.level(peak);
    if (!this.#ready) return;
    const waiting_s = this.#socket.bufferedAmount / 2 / this.#capture.context.sampleRate;
    if (!this.#lagging && waiting_s > LONGEST_LAG_S) {
      this.#lagging = true;
      this.on.state("lagging", "The network is too slow for live audio: skipping until it has caught up.");
    }
    if (this.#lagging) { // once all is sent, end this stream: the next one has an epoch of its own, not a hole
      if (waiting_s > 0) return;
      this.#ready = false;
      return this.#socket.send('{"type":"end"}');
    }
    this.#socket.send(pcm);
    this.#silent = peak < SILENT_PEAK ? this.#silent + 1 : 0;
    if (this.#silent === SILENT_MESSAGES) this.on.state("muted", "Listening, but there is no sound. Muted?");
    if (this.#silent === 0) this.#connected();
  }
}

/** Every tab and every start gets its own stream name. */
const newName = () => `browser-${crypto.getRandomValues(new Uint16Array(1))[0].toString(16).padStart(4, "0")}`;
