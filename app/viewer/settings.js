/** What the page remembers in this browser: never the key, which lives as long as its tab (api.js). */

const NAME = "tickhub.viewer";
export const MOST_WATCHED = 500;

export const INTERVALS = ["1s", "5s", "15s", "30s", "1m", "3m", "5m", "15m", "30m", "1h", "4h", "1d", "1w", "1M"];
export const SIDES = ["bid", "ask", "mid", "last"];
export const THEMES = ["auto", "light", "dark"];
export const ZONES = ["local", "utc"];

const oneOf = (choices, fallback) => (value) => (choices.includes(value) ? value : fallback);
const textOrNull = (value) => (typeof value === "string" && value ? value : null);

const FIELDS = {
  /** Names in their order; null: whatever the server has prices of. */
  watch: (value) =>
    Array.isArray(value) ? [...new Set(value.filter(textOrNull))].slice(0, MOST_WATCHED) : null,
  symbol: textOrNull,
  interval: oneOf(INTERVALS, "1m"),
  side: oneOf(SIDES, "bid"),
  theme: oneOf(THEMES, "auto"),
  zone: oneOf(ZONES, "local"),
  /** Number of the newest alert that was looked at. */
  alert: (value) => (Number.isSafeInteger(value) ? value : 0),
};

export class Settings {
  constructor(storage) {
    this.storage = storage;
    const stored = this.#stored();
    for (const [name, checked] of Object.entries(FIELDS)) this[name] = checked(stored[name]);
  }

  set(name, value) {
    this[name] = FIELDS[name](value);
    // The others as they are stored: another tab may have set them since this one was opened.
    const kept = { ...this.#stored(), [name]: this[name] };
    try {
      this.storage.setItem(NAME, JSON.stringify(kept));
    } catch {
      // Blocked or full: it holds for this visit.
    }
  }

  #stored() {
    try {
      return JSON.parse(this.storage.getItem(NAME)) ?? {};
    } catch {
      return {}; // blocked, or written by something else: begin with the defaults
    }
  }
}

/** Return the browser's storage of a kind; where it is blocked one that lasts for the visit. */
export function storageOf(kind) {
  try {
    return window[kind];
  } catch {
    const kept = new Map();
    return {
      getItem: (name) => kept.get(name) ?? null,
      setItem: (name, value) => kept.set(name, value),
      removeItem: (name) => kept.delete(name),
    };
  }
}
