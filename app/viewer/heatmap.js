/** A map of days by hours: drawn once a range of days, its cells filled as they become known, walked with the keys. */

import { write } from "./frame.js";

const HOURS = 24;
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const EDGES = { Home: 0, End: Infinity };
const PAGES = { PageUp: "older", PageDown: "newer" };

const dayFormat = (options) => new Intl.DateTimeFormat(undefined, { timeZone: "UTC", ...options });
export const LONG_DAY = dayFormat({ weekday: "short", day: "numeric", month: "short", year: "numeric" });
const MONTH = dayFormat({ month: "short", year: "numeric" });

export const hourText = (hour) => `${String(hour).padStart(2, "0")}:00`;

function made(name, fields = {}, ...children) {
  const node = Object.assign(document.createElement(name), fields);
  node.append(...children);
  return node;
}

export class HeatMap {
  #days = [];
  #cells = new Map();
  /** The cell that Tab leads to: the place of its day, and its hour. */
  #column = 0;
  #hour = HOURS / 2;

  /** look(day, hour): {band, title} of a cell; band null: nothing is there, undefined: not known yet. */
  constructor({ table, told, look, on }) {
    Object.assign(this, { table, told, look, on });
    table.addEventListener("keydown", (event) => this.#moved(event));
    table.addEventListener("focusin", ({ target }) => this.#point(target.closest("td")));
    table.addEventListener("pointerover", ({ target }) => this.#tell(target.closest("td")));
    table.addEventListener("pointerleave", () => this.#tell(this.#hasFocus ? this.chosen : null));
  }

  /** Draw these days, dates in their order; who was in the map stays at the place, else the newest day is chosen. */
  show(days) {
    const focused = this.#hasFocus;
    this.#column = focused ? Math.min(this.#column, days.length - 1) : days.length - 1;
    this.#days = days;
    this.#cells.clear();
    const head = made("thead", {}, this.#months(), this.#dates());
    const body = made("tbody", {}, ...Array.from({ length: HOURS }, (_, hour) => this.#row(hour)));
    this.table.dataset.days = days.length;
    this.table.replaceChildren(...(days.length ? [head, body] : []));
    this.fill(days);
    this.#tell(null);
    if (!days.length) return;
    this.chosen.tabIndex = 0;
    if (focused) this.chosen.focus();
  }

  /** Write what is known of some days by now, as far as they are shown. */
  fill(days) {
    for (const day of days) {
      for (let hour = 0; hour < HOURS; hour += 1) {
        const cell = this.#cells.get(`${day} ${hour}`);
        if (!cell) continue;
        const { band, title } = this.look(day, hour);
        cell.classList.toggle("unread", band === undefined);
        if (band == null) delete cell.dataset.band;
        else cell.dataset.band = band;
        cell.title = title;
        cell.setAttribute("aria-label", title);
      }
    }
    if (this.#hasFocus) this.#tell(this.chosen);
  }

  /** The cell that has, or would have, the focus; null: there are none. */
  get chosen() {
    return this.#cells.get(`${this.#days[this.#column]} ${this.#hour}`) ?? null;
  }

  get #hasFocus() {
    return this.table.contains(document.activeElement);
  }

  #months() {
    const row = made("tr", {}, made("td"));
    let before = null;
    for (const day of this.#days) {
      const text = MONTH.format(Date.parse(day));
      if (text === before) {
        row.lastChild.colSpan += 1;
        continue;
      }
      before = text;
      row.append(made("th", { scope: "colgroup" }, made("div", {}, made("span", { textContent: text }))));
    }
    return row;
  }

  #dates() {
    const cells = this.#days.map((day) => {
      const at = new Date(day);
      const cell = made("th", { scope: "col", title: LONG_DAY.format(at) }, String(at.getUTCDate()));
      cell.classList.toggle("monday", at.getUTCDay() === 1);
      return cell;
    });
    return made("tr", {}, made("td"), ...cells);
  }

  #row(hour) {
    const row = made("tr", {}, made("th", { scope: "row", textContent: hourText(hour).slice(0, 2) }));
    for (const [column, day] of this.#days.entries()) {
      const cell = made("td", { tabIndex: -1 });
      Object.assign(cell.dataset, { at: `${day} ${hour}`, column, hour });
      this.#cells.set(cell.dataset.at, cell);
      row.append(cell);
    }
    return row;
  }

  #point(cell) {
    if (!cell?.dataset.at) return;
    if (this.chosen) this.chosen.tabIndex = -1;
    [this.#column, this.#hour] = [Number(cell.dataset.column), Number(cell.dataset.hour)];
    cell.tabIndex = 0;
    this.#tell(cell);
  }

  #tell(cell) {
    write(this.told, cell?.title ?? "");
  }

  #moved(event) {
    if (!this.#days.length || event.altKey || event.ctrlKey || event.metaKey) return;
    const { key } = event;
    if (key in PAGES) this.on[PAGES[key]]();
    else if (key in MOVES || key in EDGES) {
      const [across, down] = MOVES[key] ?? [0, 0];
      const within = (value, most) => Math.max(0, Math.min(most, value));
      const column = within(EDGES[key] ?? this.#column + across, this.#days.length - 1);
      this.#cells.get(`${this.#days[column]} ${within(this.#hour + down, HOURS - 1)}`).focus();
    } else return;
    event.preventDefault();
  }
}
