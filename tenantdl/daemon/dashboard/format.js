// Numbers as people read them, and elements by one call.

const NBSP = "\u00a0"; // a number and its unit stay on one line

export function ms(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 10000) return `${(value / 1000).toFixed(0)}${NBSP}s`;
  if (value >= 1000) return `${(value / 1000).toFixed(1)}${NBSP}s`;
  if (value >= 100) return `${value.toFixed(0)}${NBSP}ms`;
  return value >= 10 ? `${value.toFixed(1)}${NBSP}ms` : `${value.toFixed(2)}${NBSP}ms`;
}

// A figure that somebody chose: without zeros behind the point.
export function round(value) {
  return ms(value).replace(/\.(\d*?)0+(?=\D)/, (_, left) => (left ? `.${left}` : ""));
}

export function percent(share, digits = 1) {
  if (share === null || share === undefined) return "–";
  return `${(100 * share).toFixed(share === 1 || share === 0 ? 0 : digits)}${NBSP}%`;
}

export function count(value) {
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)} M`;
  return value >= 1e4 ? `${(value / 1e3).toFixed(1)} k` : String(Math.round(value));
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} d`;
}

// Names come from configs and are only ever set as text.
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") made.className = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

export function drawn(tag, attributes = {}, text = null) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  return made;
}

export function colour(tenant) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--tenant-${tenant % 8}`).trim();
}
