// What every view needs. Names and labels come from models and strangers: they enter as text only, never as markup.

/** @param {string} id @returns {any} */
export const byId = (id) => document.getElementById(id);

/** Writes only what changed, so that a live region speaks once. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * An element with properties and children; strings become text nodes.
 * @param {string} tag
 * @param {Record<string, any> | string} [properties] or just its class
 * @param {...(Node | string)} children
 * @returns {any}
 */
export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  const { data, aria, ...rest } = typeof properties === "string" ? { className: properties } : properties;
  Object.assign(node, rest);
  Object.assign(node.dataset, data ?? {});
  for (const [name, value] of Object.entries(aria ?? {})) node.setAttribute(name === "role" ? name : `aria-${name}`, value);
  node.append(...children);
  return node;
}

export function showState(id, state, text) {
  byId(id).dataset.state = state;
  setText(byId(id), text);
}

/** Tells something that stays until it is dismissed or another takes its place; "" takes it away. */
export function showNotice(text) {
  byId("notice").hidden = !text;
  setText(byId("notice-text"), text);
}

/** Puts `keys` where they are not yet, in order; rows that stay keep their focus and state. */
export function keyed(parent, keys, make, update) {
  const old = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  for (const [i, key] of keys.entries()) {
    const node = old.get(key) ?? make(i);
    node.dataset.key = key;
    old.delete(key);
    update?.(node, i);
    if (parent.children[i] !== node) parent.insertBefore(node, parent.children[i] ?? null);
  }
  for (const node of old.values()) node.remove();
}

export const clock = (at) => new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** Time, with the day where it was not today. */
export function moment(at) {
  const when = new Date(at);
  const day = when.toDateString() === new Date().toDateString() ? "" : `${when.toLocaleDateString()} `;
  return day + clock(at);
}

/** What the server refused; of a scope that people may not know, why. */
export const explained = (message) => (!message.endsWith("wanted view") ? message
  : "This token may not look: to see what a stream sounds like is to hear it, in practice. Whoever runs the server can allow "
    + "it: kws-serve token grant NAME --scope view");

export const seconds = (s) => (s < 90 ? `${Math.round(s)} s` : s < 5400 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`);
