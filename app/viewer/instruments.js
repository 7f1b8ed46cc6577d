/** The server's instruments: their digits, names, and finding one. */

import { decimalsOf } from "./format.js";

const MOST_FOUND = 12;
const SEEN_DIGITS = 6;
const STALE_MS = 10_000;
const DEFAULT_WATCHED = 30;

/** What a name may be, as the server has it. */
const VALID = /^[A-Za-z0-9_.#&+\-/^$!@]([A-Za-z0-9_.#&+\-/^$!@ ]{0,62}[A-Za-z0-9_.#&+\-/^$!@])?$/;

export const isName = (text) => VALID.test(text);

export class Instruments {
  #rows = [];
  #byName = new Map();
  #seen = new Map();
  #loadedAt = -Infinity; // never

  constructor(api) {
    this.api = api;
  }

  get loaded() {
    return this.#loadedAt > 0;
  }

  /** How old what is known is. */
  get ageMs() {
    return performance.now() - this.#loadedAt;
  }

  async load() {
    const { symbols } = await this.api.get("/api/symbols");
    this.#rows = symbols;
    this.#byName = new Map(symbols.map((row) => [row.symbol, row]));
    this.#loadedAt = performance.now();
  }

  /** Load them if what is known is old; trouble leaves what is known. */
  async freshen() {
    if (this.ageMs > STALE_MS) await this.load().catch(() => {});
  }

  async add(fields) {
    const row = await this.api.post("/api/symbols", fields);
    await this.load();
    return row.symbol;
  }

  find(name) {
    return this.#byName.get(name);
  }

  nameOf(symbol) {
    return this.find(symbol)?.name ?? "";
  }

  /** Decimals of its prices: as the server says, else as many as were seen. */
  digits(symbol) {
    return this.find(symbol)?.digits ?? this.#seen.get(symbol) ?? 2;
  }

  /** Take a price into account; return whether its instrument has more digits than before. */
  learn(symbol, value) {
    if (value == null || this.find(symbol)?.digits != null) return false;
    const digits = Math.max(2, decimalsOf(value, SEEN_DIGITS));
    if (digits <= this.digits(symbol)) return false;
    this.#seen.set(symbol, digits);
    return true;
  }

  forget(symbol) {
    this.#seen.delete(symbol);
  }

  /** What a new visitor watches: what has prices, else what there is. */
  suggested() {
    const moving = this.#rows.filter((row) => row.last_updated);
    return (moving.length ? moving : this.#rows).slice(0, DEFAULT_WATCHED).map((row) => row.symbol);
  }

  /** Return the best matches of what was typed: by name or alias, then by description. */
  search(text) {
    const wanted = text.trim().toUpperCase();
    const ranked = [];
    for (const row of this.#rows) {
      const rank = wanted ? rankOf(row, wanted) : 3;
      if (rank < 5) ranked.push([rank, row]);
    }
    ranked.sort((a, b) => a[0] - b[0] || (a[1].symbol < b[1].symbol ? -1 : 1));
    return ranked.slice(0, wanted ? MOST_FOUND : 50).map(([, row]) => row);
  }

  /** Return the instrument that has exactly this name or alias, in any case. */
  exact(text) {
    const wanted = text.trim().toUpperCase();
    return this.#rows.find((row) => namesOf(row).includes(wanted));
  }
}

const namesOf = (row) => [row.symbol, ...row.aliases].map((name) => name.toUpperCase());

function rankOf(row, wanted) {
  const names = namesOf(row);
  if (names.includes(wanted)) return 0;
  if (names[0].startsWith(wanted)) return 1;
  if (names.some((name) => name.startsWith(wanted))) return 2;
  if (names.some((name) => name.includes(wanted))) return 3;
  return (row.name ?? "").toUpperCase().includes(wanted) ? 4 : 5;
}
