// Audio thread: the microphone as 100 ms messages of mono s16le, each with its peak before clipping.

class MicrophoneWorklet extends AudioWorkletProcessor {
  samples = new Int16Array(Math.round(sampleRate / 10)); // every browser's platform is little-endian
  n = 0;
  peak = 0;

  process([[channel]]) {
    for (const sample of channel ?? []) {
      this.peak = Math.max(this.peak, Math.abs(sample));
      this.samples[this.n++] = Math.max(-32768, Math.min(32767, Math.round(sample * 32768)));
      if (this.n === this.samples.length) {
        const pcm = this.samples.slice().buffer;
        this.port.postMessage({ pcm, peak: this.peak }, [pcm]);
        this.n = this.peak = 0;
      }
    }
    return true;
  }
}

registerProcessor("microphone", MicrophoneWorklet);
