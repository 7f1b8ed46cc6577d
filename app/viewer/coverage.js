/** Coverage: how much of each hour of a symbol's sessions had ticks, as a map of some days, the newest at first. */

import { segments } from "./controls.js";
import { whole } from "./format.js";
import { write } from "./frame.js";
import { HeatMap, hourText, LONG_DAY } from "./heatmap.js";

const COUNTS = [7, 14, 30, 90];
/** A day of a busy symbol takes the server a second: one is asked for at first, more at a time while that is quick. */
const MOST_ASKED = 8;
const QUICK_MS = 500;
/** Who steps quickly asks for what he comes to, not for all that he passes. */
const STEP_MS = 250;
/** Days that are kept while the map is open. */
const KEPT = 800;
/** Before it there are no days. */
const FIRST_DAY = "1970-01-01";
const DAY_MS = 86_400_000;
/** Coverage from which on a colour of style.css holds, and what it is called; closed hours have two of their own. */
const BANDS = [
  [0.999, "99.9 % and more"],
  [0.99, "99 %"],
  [0.95, "95 %"],
  [0.8, "80 %"],
  [1e-9, "less"],
  [0, "nothing"],
];
const CLOSED = ["closed", "closed, but ticks"];
const RANGE = new Intl.DateTimeFormat(undefined, { timeZone: "UTC", day: "numeric", month: "short", year: "numeric" });

const byId = (id) => document.getElementById(id);
const dayOf = (ms) => new Date(ms).toISOString().slice(0, 10);
const plus = (day, days) => dayOf(Date.parse(day) + days * DAY_MS);
/** Rounded down: what is not whole must not look so. */
const percentOf = (coverage) => `${Math.floor(coverage * 1000) / 10} % covered`;

export function bandOf({ coverage, ticks }) {
  if (coverage === null) return BANDS.length + (ticks > 0 ? 1 : 0);
  return BANDS.findIndex(([least]) => coverage >= least);
}

export class Coverage {
  /** Of each day that was read its rows by their hour. */
  #read = new Map();
  /** The exchange's running day; null: not known yet. */
  #newest = null;
  /** Dates, UTC, of the symbol's first and last tick; null: it has none. */
  #ticks = null;
  /** The last day that is shown; null: the newest. */
  #to = null;
  #count = matchMedia("(max-width: 760px)").matches ? 14 : 30;
  #leaving = new AbortController();
  #soon = 0;
  symbol = null;

  constructor(api) {
    this.api = api;
    this.dialog = byId("coverage-dialog");
    const parts = ["title", "state", "legend", "open24", "range", "note"];
    const controls = ["older", "newer", "newest", "to", "jump", "again"];
    for (const part of [...parts, ...controls]) this[part] = byId(`coverage-${part}`);
    const on = { older: () => this.#step(-1), newer: () => this.#step(1) };
    const look = (day, hour) => this.#look(day, hour);
    this.map = new HeatMap({ table: byId("coverage"), told: byId("coverage-told"), look, on });
    this.dialog.addEventListener("close", () => this.#leave());
    this.older.addEventListener("click", on.older);
    this.newer.addEventListener("click", on.newer);
    this.newest.addEventListener("click", () => this.#anew());
    // Both are hidden by what they do, and would take the focus with them.
    this.again.addEventListener("click", () => {
      this.#show(this.#to, 0);
      (this.map.chosen ?? this.title).focus();
    });
    this.jump.addEventListener("click", () => {
      this.#show(plus(this.#ticks.last, 1));
      this.map.chosen.focus();
    });
    this.to.addEventListener("change", () => this.to.value && this.to.validity.valid && this.#show(this.to.value));
    this.to.addEventListener("blur", () => this.#draw());
    segments(byId("coverage-count"), "coverage-count", COUNTS, this.#count, (count) => {
      this.#count = count;
      this.#show(this.#to);
    });
    const items = [...BANDS.map(([, name]) => name), ...CLOSED].map((name, band) => {
      const [item, sample] = [document.createElement("li"), document.createElement("i")];
      sample.dataset.band = band;
      item.append(sample, name);
      return item;
    });
    this.legend.replaceChildren(...items);
  }

  /** Open the dialog and read days of a symbol, until it is closed. calendar: of its exchange; null: none is known. */
  open(symbol, calendar) {
    this.symbol = symbol;
    this.open24.hidden = Boolean(calendar);
    write(this.title, `Coverage of ${symbol}`);
    this.#anew();
    this.dialog.showModal();
  }

  /** Forget what is known, and show the newest days. */
  #anew() {
    this.#read.clear();
    [this.#newest, this.#ticks] = [null, null];
    this.map.show([]);
    this.#show(null, 0);
  }

  #leave() {
    this.#leaving.abort();
    clearTimeout(this.#soon);
  }

  get #last() {
    return this.#to ?? this.#newest;
  }

  get #first() {
    return [FIRST_DAY, plus(this.#last, 1 - this.#count)].sort().at(-1);
  }

  #days() {
    if (this.#newest === null) return [];
    const days = (Date.parse(this.#last) - Date.parse(this.#first)) / DAY_MS + 1;
    return Array.from({ length: days }, (_, at) => plus(this.#first, at));
  }

  #step(by) {
    if ((by < 0 ? this.older : this.newer).ariaDisabled !== "true") this.#show(plus(this.#last, by * this.#count));
  }

  /** Show the days up to one, null: to the newest; what was asked for before is not waited for. */
  #show(to, waitMs = STEP_MS) {
    this.#leave();
    this.#leaving = new AbortController();
    const { signal } = this.#leaving;
    this.#to = this.#newest === null || to === null || to >= this.#newest ? null : to;
    if (this.#read.size > KEPT) this.#read.clear();
    this.map.show(this.#days());
    this.#say("loading");
    this.#draw();
    this.#soon = setTimeout(() => this.#load(signal), waitMs);
  }

  async #load(signal) {
    try {
      if (this.#newest === null) await this.#begin(signal);
      for (let most = 1, missing = this.#missing(most); missing !== null; missing = this.#missing(most)) {
        const askedMs = performance.now();
        await this.#ask(...missing, signal);
        most = performance.now() - askedMs < QUICK_MS ? Math.min(2 * most, MOST_ASKED) : 1;
      }
      this.#say("ready");
      this.#draw();
    } catch (error) {
      if (!signal.aborted) this.#say("failed", error.message);
    }
  }

  /** Learn which day is the newest, and where the symbol has ticks. */
  async #begin(signal) {
    const edge = async (order) => {
      const path = `/api/ticks/${encodeURIComponent(this.symbol)}`;
      const { ticks } = await this.api.get(path, { order, limit: 1 }, signal);
      return ticks.length ? dayOf(Date.parse(ticks[0].timestamp)) : null;
    };
    // The exchange's date may be another one than UTC's; of days that have not come there is no row.
    const today = dayOf(this.api.clock.server());
    const range = [plus(today, -1), plus(today, 3)];
    const [first, last, rows] = await Promise.all([edge("asc"), edge("desc"), this.#rows(...range, signal)]);
    signal.throwIfAborted();
    this.#ticks = first === null ? null : { first, last };
    this.#newest = [...rows.keys()].at(-1) ?? today;
    for (const [day, hours] of rows) this.#read.set(day, hours);
    this.map.show(this.#days());
    this.#draw();
    if (document.activeElement === this.title) this.map.chosen.focus();
  }

  /** Return the newest days that are shown and not read, as their first and the one after the last; null: none is. */
  #missing(most) {
    const unread = this.#days().filter((day) => !this.#read.has(day));
    if (!unread.length) return null;
    const last = unread.at(-1);
    let first = last;
    while (unread.includes(plus(first, -1)) && plus(first, most) > last) first = plus(first, -1);
    return [first, plus(last, 1)];
  }

  async #ask(first, end, signal) {
    const rows = await this.#rows(first, end, signal);
    signal.throwIfAborted();
    const days = [];
    for (let day = first; day < end; day = plus(day, 1)) days.push(day);
    for (const day of days) this.#read.set(day, rows.get(day) ?? new Map());
    this.map.fill(days);
  }

  async #rows(start, end, signal) {
    const path = `/api/coverage/${encodeURIComponent(this.symbol)}/hours`;
    const { hours } = await this.api.get(path, { start, end }, signal);
    const found = new Map();
    for (const row of hours) {
      const day = row.timestamp.slice(0, 10);
      if (!found.has(day)) found.set(day, new Map());
      found.get(day).set(row.hour, row);
    }
    return found;
  }

  #say(state, why = "") {
    this.dialog.dataset.state = state;
    write(this.state, { loading: "Reading …", ready: this.#summary(), failed: why }[state]);
    this.again.hidden = state !== "failed";
  }

  /** Write all about the range of days but the map. */
  #draw() {
    const known = this.#newest !== null;
    write(this.range, known ? RANGE.formatRange(Date.parse(this.#first), Date.parse(this.#last)) : "");
    // What somebody types is not written over; at the end of it, it is.
    if (document.activeElement !== this.to) this.to.value = known ? this.#last : "";
    this.to.max = this.#newest ?? "";
    // The day at the exchange may be the one before that of UTC.
    this.older.ariaDisabled = String(!known || this.#ticks === null || this.#first < this.#ticks.first);
    this.newer.ariaDisabled = String(this.#to === null);
    const isEmpty = known && this.dialog.dataset.state === "ready" && this.#sum("ticks") === 0;
    const none = known && this.#ticks === null;
    const last = RANGE.format(Date.parse(this.#ticks?.last ?? FIRST_DAY));
    const elsewhere = `No ticks in these days. The newest are of ${last}.`;
    write(this.note, none ? `${this.symbol} has no ticks yet.` : isEmpty ? elsewhere : "");
    this.jump.hidden = none || !isEmpty;
  }

  #sum(field) {
    const rows = this.#days().flatMap((day) => [...(this.#read.get(day)?.values() ?? [])]);
    return rows.reduce((sum, row) => sum + row[field], 0);
  }

  #summary() {
    const open = this.#sum("session_s");
    return `${open ? percentOf(1 - this.#sum("gaps_s") / open) : "closed"}, ${whole(this.#sum("ticks"))} ticks`;
  }

  #look(day, hour) {
    const when = `${LONG_DAY.format(Date.parse(day))}, ${hourText(hour)}`;
    const hours = this.#read.get(day);
    if (!hours) return { title: `${when}: not read yet` };
    const found = hours.get(hour);
    if (!found) return { band: null, title: `${when}: clocks skipped it, or it has not come yet` };
    const { coverage, ticks, gaps_s: gaps } = found;
    const told = coverage === null ? "closed" : `${percentOf(coverage)}, ${whole(gaps)} s in gaps`;
    return { band: bandOf(found), title: `${when}: ${told}, ${whole(ticks)} ticks` };
  }
}
