// This browser's microphone as one live stream of the server: capture, an AudioSender, and what went wrong in plain words.

import { RING_S, ServiceError } from "./kws-client.js";

const LONGEST_LAG_S = RING_S - 1; // that the server has not acknowledged; beyond it audio is skipped, said and never joined
const SILENT_PEAK = 0.0002;
const SILENT_MESSAGES = 50; // of 100 ms
const RETRY_MS = 2000;
const OFF = "Off. Audio goes to this server only and is not stored.";
const FAULTS = {
  NotAllowedError: "The browser was told not to use the microphone. Allow it in the address bar, then press Listen.",
  NotFoundError: "No microphone was found. Plug one in, then press Listen.",
  NotReadableError: "The microphone is used by another program or switched off by the system.",
};

export class Microphone {
  #capture = null; // { media, context }
  #lagging = false;
  #sender = null;
  #silent = 0;

  /** `on`: state(name, text), notice(text), token(), stream(name). */
  constructor(client, on) {
    this.client = client;
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
    this.#feed(this.#capture);
  }

  /** Ends the stream politely: the server flushes what it has and frees the name. */
  stop(state = "off", text = OFF) {
    this.#capture?.media.getTracks().forEach((track) => track.stop());
    this.#capture?.context.close();
    this.#capture = null;
    const sender = this.#sender;
    this.#sender = null;
    sender?.end();
    setTimeout(() => sender?.close(), 3000); // a server that never says done
    this.on.state(state, text);
  }

  /** One stream after another, for as long as this capture runs. */
  async #feed(capture) {
    while (this.#capture === capture) {
      this.on.state("wait", "Connecting the microphone…");
      try {
        const sender = await this.client.audio(newName(), { rate: capture.context.sampleRate });
        if (this.#capture !== capture) return sender.close();
        this.#sender = sender;
        this.#silent = 0;
        this.#lagging = false;
        this.#connected();
        this.on.stream(sender.ready.stream);
        for await (const message of sender)
          if (message.type === "gap") this.on.notice(`The server skipped ${message.n} samples (${message.reason}).`);
      } catch (error) {
        if (this.#capture !== capture) return;
        const code = error instanceof ServiceError ? error.code : 0;
        if (code === 4401) this.on.token();
        if ([4400, 4401, 4403].includes(code)) return this.stop("fault", `Refused: ${error.message}`);
        this.on.state("wait", `The server does not take the microphone now, trying again… (${error.message})`);
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      } finally {
        if (this.#capture === capture) this.#sender = null;
      }
    }
  }

  #connected() {
    if (this.#sender) this.on.state("live", `Listening as ${this.#sender.ready.stream}`);
  }

  #send({ pcm, peak }) {
    const sender = this.#sender;
    if (!this.running || !sender) return;
    if (this.#lagging) return;
    if (sender.unacknowledged_s > LONGEST_LAG_S) { // end this stream: the next one has an epoch of its own, not a hole
      this.#lagging = true;
      this.on.state("lagging", "The server is away or the network too slow: skipping until it has caught up.");
      return sender.end();
    }
    sender.send(pcm).catch(() => {}); // whoever iterates is told
    if (!sender.connected) return this.on.state("wait", "Connection lost, reconnecting: the last 10 s are kept and sent then.");
    this.#silent = peak < SILENT_PEAK ? this.#silent + 1 : 0;
    if (this.#silent === SILENT_MESSAGES) this.on.state("muted", "Listening, but there is no sound. Muted?");
    if (this.#silent === 0) this.#connected();
  }
}

/** Every tab and every start gets its own stream name. */
const newName = () => `browser-${crypto.getRandomValues(new Uint16Array(1))[0].toString(16).padStart(4, "0")}`;
