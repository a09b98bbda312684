// A colour and an icon for each label: never the colour alone, so that colour-blind people can tell them apart.

const ICONS = {
  yes: "✓", no: "✕", up: "↑", down: "↓", left: "←", right: "→", on: "◉", off: "○", stop: "■", go: "▶",
  babycry: "♪", glassbreak: "✦", gunshot: "✹",
};
const SHAPES = ["●", "▲", "◆", "★", "✚", "▼", "▣", "✱", "◐", "♦", "♣"];
const COLOURS = 8;

const known = new Map(); // label -> its number, in the order in which models name them
const experimental = new Set();

/** What the models say of their labels: each looks the same everywhere. */
export function learnLabels(models) {
  for (const model of models) {
    for (const label of Object.keys(model.detection)) if (!known.has(label)) known.set(label, known.size);
    for (const label of model.experimental_labels) experimental.add(label);
  }
}

/** One that no loaded model has (of the past, or a rest label) has a number that its name makes. */
const number = (label) => known.get(label) ?? [...label].reduce((sum, c) => (31 * sum + c.codePointAt(0)) % 1009, 7);

export const isExperimental = (label) => experimental.has(label);

export const iconOf = (label) => (Object.hasOwn(ICONS, label) ? ICONS[label] : SHAPES[number(label) % SHAPES.length]);

/** The icon as an element; people who listen are told the label itself. */
export function icon(label, text = iconOf(label)) {
  const node = document.createElement("i");
  node.className = "icon";
  node.textContent = text;
  node.setAttribute("aria-hidden", "true");
  return node;
}

/** The class whose colour (--label) the style sheet sets for both schemes. */
export const colourClass = (label) => `label-${number(label) % COLOURS}`;

/** The same colour as a value, for canvases. */
export function colourOf(label) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--label-${number(label) % COLOURS}`).trim();
}
