/** Coverage: how much of each hour of a symbol's sessions had ticks, as a heat map of the newest days. */

import { whole } from "./format.js";
import { write } from "./frame.js";

/** Rows a request: some days. A day of a busy symbol takes the server a second, so the map is drawn as they come. */
const ROWS = 96;
const HOURS = 24;
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
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const byId = (id) => document.getElementById(id);
const two = (number) => String(number).padStart(2, "0");
const dayFormat = (options) => new Intl.DateTimeFormat(undefined, { timeZone: "UTC", ...options });
const LONG_DAY = dayFormat({ weekday: "short", day: "numeric", month: "short", year: "numeric" });
const MONTH = dayFormat({ month: "short", year: "numeric" });

export function bandOf({ coverage, ticks }) {
  if (coverage === null) return BANDS.length + (ticks > 0 ? 1 : 0);
  return BANDS.findIndex(([least]) => coverage >= least);
}

export class Coverage {
  #cells = new Map();
  #days = [];
  #at = null;
  #leaving = null;
  symbol = null;

  constructor(api) {
    this.api = api;
    this.dialog = byId("coverage-dialog");
    for (const part of ["title", "state", "told", "legend", "open24"]) this[part] = byId(`coverage-${part}`);
    this.table = byId("coverage");
    this.dialog.addEventListener("close", () => this.#leaving?.abort());
    this.table.addEventListener("keydown", (event) => this.#moved(event));
    this.table.addEventListener("focusin", ({ target }) => this.#point(target.closest("td")));
    this.table.addEventListener("pointerover", ({ target }) => this.#tell(target.closest("td")));
    this.table.addEventListener("pointerleave", () => this.#tell(this.#cell(this.#at)));
    const names = [...BANDS.map(([, name]) => name), ...CLOSED];
    const items = names.map((name, band) => {
      const [item, sample] = [document.createElement("li"), document.createElement("i")];
      sample.dataset.band = band;
      item.append(sample, name);
      return item;
    });
    this.legend.replaceChildren(...items);
  }

  /** Open the dialog and read the newest days of a symbol, until it is closed. exchange: null where none is known. */
  async open(symbol, exchange) {
    this.symbol = symbol;
    this.open24.hidden = Boolean(exchange);
    this.#cells.clear();
    this.#days = [];
    this.#at = null;
    this.#leaving = new AbortController();
    const { signal } = this.#leaving;
    write(this.title, `Coverage of ${symbol}`);
    write(this.told, "");
    this.#draw();
    this.#say("loading");
    this.dialog.showModal();
    try {
      let token = null;
      do {
        const asked = { order: "desc", limit: ROWS, page_token: token };
        const answer = await this.api.get(`/api/coverage/${encodeURIComponent(symbol)}/hours`, asked, signal);
        for (const row of answer.hours) this.#cells.set(`${row.timestamp} ${row.hour}`, row);
        token = answer.next_page_token;
        this.#draw();
      } while (token !== null);
      this.#say("ready");
    } catch (error) {
      if (!signal.aborted) this.#say("failed", error.message);
    }
  }

  #say(state, why = "") {
    this.dialog.dataset.state = state;
    write(this.state, { loading: "Reading the newest days …", ready: "", failed: why }[state]);
  }

  #draw() {
    const focused = this.table.contains(document.activeElement);
    this.#days = [...new Set([...this.#cells.values()].map((row) => row.timestamp))].sort();
    const head = document.createElement("thead");
    const body = document.createElement("tbody");
    if (this.#days.length) {
      head.append(this.#months(), this.#dates());
      for (let hour = 0; hour < HOURS; hour += 1) body.append(this.#row(hour));
    }
    this.table.replaceChildren(head, body);
    this.#at ??= this.#days.length ? `${this.#days.at(-1)} ${HOURS / 2}` : null;
    const chosen = this.#cell(this.#at);
    if (chosen === null) return;
    chosen.tabIndex = 0;
    if (focused) chosen.focus();
    else this.table.parentElement.scrollLeft = this.table.scrollWidth;
  }

  #months() {
    const row = document.createElement("tr");
    row.append(document.createElement("td"));
    let before = null;
    for (const day of this.#days) {
      const text = MONTH.format(Date.parse(day));
      if (text === before) {
        row.lastChild.colSpan += 1;
        continue;
      }
      const [cell, name] = [document.createElement("th"), document.createElement("span")];
      name.textContent = before = text;
      cell.append(name);
      row.append(cell);
    }
    return row;
  }

  #dates() {
    const row = document.createElement("tr");
    row.append(document.createElement("td"));
    for (const day of this.#days) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = String(new Date(day).getUTCDate());
      cell.title = LONG_DAY.format(Date.parse(day));
      row.append(cell);
    }
    return row;
  }

  #row(hour) {
    const row = document.createElement("tr");
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = two(hour);
    row.append(head);
    for (const day of this.#days) {
      const cell = document.createElement("td");
      const found = this.#cells.get(`${day} ${hour}`);
      cell.tabIndex = -1;
      cell.dataset.at = `${day} ${hour}`;
      if (found) cell.dataset.band = bandOf(found);
      cell.title = this.#text(day, hour, found);
      cell.setAttribute("aria-label", cell.title);
      row.append(cell);
    }
    return row;
  }

  #text(day, hour, found) {
    const when = `${LONG_DAY.format(Date.parse(day))}, ${two(hour)}:00`;
    if (!found) return `${when}: clocks skipped it, or it has not come yet`;
    const { coverage, ticks, gaps_s: gaps } = found;
    const count = `${whole(ticks)} ticks`;
    if (coverage === null) return `${when}: closed, ${count}`;
    // Rounded down: what is not whole must not look so.
    return `${when}: ${Math.floor(coverage * 1000) / 10} % covered, ${whole(gaps)} s in gaps, ${count}`;
  }

  #cell(at) {
    return at === null ? null : this.table.querySelector(`td[data-at="${at}"]`);
  }

  #point(cell) {
    if (!cell?.dataset.at) return;
    const before = this.#cell(this.#at);
    if (before) before.tabIndex = -1;
    cell.tabIndex = 0;
    this.#at = cell.dataset.at;
    this.#tell(cell);
  }

  #tell(cell) {
    if (cell?.dataset.at) write(this.told, cell.title);
  }

  #moved(event) {
    if (this.#at === null || event.altKey || event.ctrlKey || event.metaKey) return;
    const [day, hour] = this.#at.split(" ");
    const column = this.#days.indexOf(day);
    const edges = { Home: 0, End: this.#days.length - 1 };
    const [across, down] = MOVES[event.key] ?? [0, 0];
    const to = edges[event.key] ?? Math.max(0, Math.min(this.#days.length - 1, column + across));
    if (!(event.key in MOVES) && !(event.key in edges)) return;
    event.preventDefault();
    const hours = Math.max(0, Math.min(HOURS - 1, Number(hour) + down));
    this.#cell(`${this.#days[to]} ${hours}`)?.focus();
  }
}
