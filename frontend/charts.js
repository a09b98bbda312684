// Pictures of features and curves of scores. No imports: the timeline pages of kws-detect carry this file, too.

/** What the kinds of features are called. */
export const FEATURES = { mfcc: "MFCC", fbank: "log mel energies", raw: "waveform (its envelope)" };

export const LEFT = 52; // px of the axis left of every picture, so that they share their time axis
export const RIGHT = 8;

// From dark to light over blue and yellow: lightness alone tells the values, so it reads without colours, too.
const ANCHORS = [[13, 8, 45], [42, 45, 110], [60, 95, 140], [78, 142, 140], [140, 184, 115], [222, 214, 100], [252, 248, 220]];
const MAP = Uint32Array.from({ length: 256 }, (_, i) => {
  const at = (i / 255) * (ANCHORS.length - 1);
  const k = Math.min(ANCHORS.length - 2, Math.floor(at));
  const [r, g, b] = ANCHORS[k].map((low, c) => Math.round(low + (ANCHORS[k + 1][c] - low) * (at - k)));
  return (255 << 24) | (b << 16) | (g << 8) | r;
});
const NOTHING = 0; // transparent

/** The range of each coefficient (MFCC) or of all together (log mel). It grows at once and shrinks by `forget` a row. */
class Range {
  constructor(kind, forget = 0) {
    this.each = kind === "mfcc";
    this.forget = forget;
    this.low = [];
    this.high = [];
  }

  take(row) {
    const values = row.filter((v) => v !== null);
    if (this.each) row.forEach((v, i) => v !== null && this.#widen(i, v, v));
    else if (values.length) this.#widen(0, Math.min(...values), Math.max(...values));
  }

  #widen(i, low, high) {
    const span = (this.high[i] ?? high) - (this.low[i] ?? low);
    this.low[i] = Math.min(low, (this.low[i] ?? low) + this.forget * span);
    this.high[i] = Math.max(high, (this.high[i] ?? high) - this.forget * span);
  }

  /** 0 to 255. */
  of(value, i) {
    const k = this.each ? i : 0;
    if (value === null) return 0;
    const share = (value - this.low[k]) / (this.high[k] - this.low[k] || 1);
    return Math.max(0, Math.min(255, Math.round(255 * share)));
  }
}

const WAVE_ROWS = 64;
const HEADROOM = 1.4; // above the scores, for the marks' words

/** Draws rows of features as columns of `image`, the first coefficient at the bottom; raw: lowest to highest. */
function paint(pixels, x, width, row, kind, range) {
  const rows = pixels.length / width;
  if (kind === "raw") {
    const [low, high] = row.map((v) => Math.round(((v ?? 0) * 0.5 + 0.5) * (rows - 1)));
    for (let y = 0; y < rows; y++) pixels[(rows - 1 - y) * width + x] = y >= low && y <= high ? MAP[160] : MAP[20];
  } else {
    for (let y = 0; y < rows; y++) pixels[(rows - 1 - y) * width + x] = MAP[range.of(row[y], y)];
  }
}

/** Features that scroll: a canvas with the last `span_s` seconds of a stream. */
export class ScrollingFeatures {
  #columns = 0;
  #hop_s = 0;
  #last = -1; // the newest column's number since the stream began

  constructor(canvas, span_s) {
    this.canvas = canvas;
    this.span_s = span_s;
    this.ring = document.createElement("canvas");
    this.clear("mfcc");
  }

  clear(kind) {
    this.kind = kind;
    this.range = new Range(kind, 0.002);
    this.#columns = 0;
    this.#last = -1;
  }

  /** Rows of features, evenly from first_s to end_s. */
  add(first_s, end_s, rows) {
    if (!rows.length || !(end_s > first_s)) return;
    const hop_s = (end_s - first_s) / rows.length;
    if (!this.#columns) this.#start(hop_s, rows[0].length);
    for (const row of rows) if (this.kind !== "raw") this.range.take(row);
    const number = Math.round(end_s / this.#hop_s) - 1;
    if (number < this.#last || number > this.#last + 2 * this.#columns) this.#last = number - rows.length; // another epoch
    const context = this.ring.getContext("2d");
    for (let i = Math.max(this.#last + 1, number - this.#columns); i <= number; i++) {
      const row = rows[rows.length - 1 - (number - i)];
      const x = i % this.#columns;
      if (row === undefined) context.clearRect(x, 0, 1, this.ring.height); // a gap
      else {
        paint(this.pixels, 0, 1, row, this.kind, this.range);
        context.putImageData(this.column, x, 0);
      }
    }
    this.#last = number;
  }

  #start(hop_s, width) {
    this.#hop_s = hop_s;
    this.#columns = Math.max(1, Math.round(this.span_s / hop_s));
    this.ring.width = this.#columns;
    this.ring.height = this.kind === "raw" ? WAVE_ROWS : width;
    this.column = new ImageData(1, this.ring.height);
    this.pixels = new Uint32Array(this.column.data.buffer);
  }

  /** Draws the seconds that end at `now_s`. */
  draw(now_s) {
    const { canvas, ring } = this;
    const context = fitted(canvas);
    const { width, height } = canvas;
    const ratio = width / (canvas.clientWidth || width);
    const left = LEFT * ratio;
    const plot = width - left - RIGHT * ratio;
    context.clearRect(0, 0, width, height);
    if (!this.#columns || this.#last < 0) return;
    context.imageSmoothingEnabled = false;
    const scale = plot / this.#columns;
    const n = Math.min(this.#last + 1, this.#columns);
    const right = left + plot - (now_s / this.#hop_s - 1 - this.#last) * scale;
    const head = (this.#last + 1) % this.#columns; // the oldest column, or the first free one
    const parts = [[0, head, right - head * scale]];
    if (n > head) parts.push([head, this.#columns - head, right - this.#columns * scale]);
    context.save();
    context.beginPath();
    context.rect(left, 0, plot, height);
    context.clip();
    for (const [from, count, x] of parts)
      if (count > 0) context.drawImage(ring, from, 0, count, ring.height, x, 0, count * scale, height);
    context.restore();
    axis(context, this.kind, ring.height, left, height, ratio);
  }
}

/** One picture of rows of features, as wide as its canvas; for a chart below it, with the same margins. */
export function drawFeatures(canvas, kind, rows, range = rangeOf(kind, rows)) {
  const image = new ImageData(rows.length, kind === "raw" ? WAVE_ROWS : rows[0].length);
  const pixels = new Uint32Array(image.data.buffer).fill(NOTHING);
  rows.forEach((row, x) => paint(pixels, x, rows.length, kind === "raw" ? loudened(row, rows) : row, kind, range));
  const source = document.createElement("canvas");
  source.width = image.width;
  source.height = image.height;
  source.getContext("2d").putImageData(image, 0, 0);
  const context = fitted(canvas);
  const ratio = canvas.width / (canvas.clientWidth || canvas.width);
  const left = LEFT * ratio;
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingEnabled = false;
  context.drawImage(source, left, 0, canvas.width - left - RIGHT * ratio, canvas.height);
  axis(context, kind, image.height, left, canvas.height, ratio);
}

/** The range of a whole recording, for pictures of its parts. */
export function rangeOf(kind, rows) {
  const range = new Range(kind);
  for (const row of rows) if (kind !== "raw") range.take(row);
  return range;
}

function loudened(row, rows) {
  const peak = Math.max(...rows.flat().map(Math.abs)) || 1;
  return row.map((v) => v / peak);
}

function fitted(canvas) {
  const ratio = globalThis.devicePixelRatio || 1;
  const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  return canvas.getContext("2d");
}

function axis(context, kind, rows, left, height, ratio) {
  const { color } = getComputedStyle(context.canvas);
  context.fillStyle = color;
  context.font = `${12 * ratio}px system-ui, sans-serif`;
  context.textAlign = "right";
  const names = kind === "raw" ? ["wave", ""] : kind === "mfcc" ? [`c${rows - 1}`, "c0"] : [`mel ${rows}`, "1"];
  context.textBaseline = "top";
  context.fillText(names[0], left - 6 * ratio, 1);
  context.textBaseline = "bottom";
  context.fillText(names[1], left - 6 * ratio, height - 1);
}

/**
 * Curves of scores over time, with thresholds and marks.
 *
 * `curves`: [{ label, colour, dash, width, threshold }]; `marks()`: [{ at_s, text, colour, row }], drawn as lines.
 */
export class ScoreChart {
  constructor(parent, curves, { marks = () => [], height = 210, span_s = null } = {}) {
    this.parent = parent;
    this.curves = curves;
    this.marks = marks;
    this.height = height;
    const { color } = getComputedStyle(parent);
    const grid = { stroke: color, width: 0.15 };
    const font = "12px system-ui, sans-serif";
    this.plot = new globalThis.uPlot({
      width: this.#width(),
      height,
      padding: [8, RIGHT, 0, 0],
      legend: { show: false },
      cursor: { show: span_s === null, drag: { x: span_s === null, y: false }, points: { show: false } },
      scales: { x: { time: false }, y: { range: [0, HEADROOM] } },
      axes: [
        { stroke: color, font, grid, ticks: grid, size: 28, values: (_, ticks) => ticks.map((t) => `${+t.toFixed(2)} s`) },
        { stroke: color, font, grid, ticks: grid, size: LEFT, splits: () => [0, 0.25, 0.5, 0.75, 1] },
      ],
      series: [
        {},
        ...curves.map(({ label, colour, dash, width }) => (
          { label, stroke: colour, width: width ?? 1.5, dash, points: { show: false }, spanGaps: false }
        )),
      ],
      hooks: { draw: [(plot) => this.#draw(plot)] },
    }, [[], ...curves.map(() => [])], parent);
    this.resizing = new ResizeObserver(() => this.parent.clientWidth && this.plot.setSize({ width: this.#width(), height }));
    this.resizing.observe(parent);
  }

  #width() {
    return Math.max(120, this.parent.clientWidth);
  }

  /** The seconds that are shown, once somebody has drawn them with the mouse. `onZoom(from_s, to_s)`. */
  set onZoom(tell) {
    (this.plot.hooks.setScale ??= []).push((plot, key) => key === "x" && tell(plot.scales.x.min, plot.scales.x.max));
  }

  /** `data`: [times, ...scores of each curve]; shows [from_s, to_s]. */
  show(data, from_s, to_s) {
    this.plot.batch(() => {
      this.plot.setData(data, false);
      this.plot.setScale("x", { min: from_s, max: to_s });
    });
  }

  destroy() {
    this.resizing.disconnect();
    this.plot.destroy();
  }

  #draw(plot) {
    const { ctx, bbox } = plot;
    const ratio = globalThis.devicePixelRatio || 1;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.lineWidth = ratio;
    for (const { colour, threshold } of this.curves) {
      if (threshold === undefined) continue;
      const y = plot.valToPos(threshold, "y", true);
      line(ctx, colour, [2 * ratio, 4 * ratio], bbox.left, y, bbox.left + bbox.width, y);
    }
    ctx.font = `${12 * ratio}px system-ui, sans-serif`;
    ctx.textBaseline = "top";
    for (const { at_s, text, colour, row = 0 } of this.marks()) {
      const x = plot.valToPos(at_s, "x", true);
      if (x < bbox.left - 200 * ratio || x > bbox.left + bbox.width) continue;
      line(ctx, colour, [], x, bbox.top, x, bbox.top + bbox.height);
      ctx.fillStyle = getComputedStyle(this.parent).color;
      const fits = x + ctx.measureText(text).width + 8 * ratio < bbox.left + bbox.width;
      ctx.textAlign = fits ? "left" : "right";
      ctx.fillText(text, x + (fits ? 4 : -4) * ratio, bbox.top + (1 + 15 * row) * ratio);
    }
    ctx.restore();
  }
}

function line(ctx, colour, dash, x0, y0, x1, y1) {
  ctx.strokeStyle = colour;
  ctx.setLineDash(dash);
  ctx.beginPath();
  ctx.moveTo(x0, y0);
  ctx.lineTo(x1, y1);
  ctx.stroke();
}
