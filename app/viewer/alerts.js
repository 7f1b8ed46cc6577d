/** Alerts: how many there are that nobody has looked at here, and a list of the newest ones. */

import { clockTime, dateOf } from "./format.js";
import { whileSeen, write } from "./frame.js";

const EVERY_MS = 5_000;
const MOST = 50;

export class Alerts {
  /** Newest first. */
  all = [];
  #newest = null;
  #asking = false;
  #write = () => this.#count();

  /** isOpen(): whether there is a connection; without one nothing is asked. notify(text): tell of one that is new. */
  constructor({ button, count, list, api, frames, settings, isOpen, notify }) {
    Object.assign(this, { button, count, list, api, frames, settings, isOpen, notify });
  }

  start() {
    whileSeen(EVERY_MS, () => this.ask());
  }

  async ask() {
    if (this.#asking || !this.isOpen()) return;
    this.#asking = true;
    try {
      this.#take((await this.api.get("/api/history/alerts", { limit: MOST })).alerts);
    } catch {
      // What is shown stays; it is asked again soon.
    } finally {
      this.#asking = false;
    }
  }

  /** Write the list, and take all that is on it for seen. */
  seen() {
    const utc = this.settings.zone === "utc";
    const rows = this.all.map(({ timestamp, message, severity }) => {
      const row = document.createElement("li");
      const time = document.createElement("time");
      const text = document.createElement("span");
      const ms = Date.parse(timestamp);
      time.dateTime = timestamp;
      time.textContent = `${dateOf(ms, utc)} ${clockTime(ms, utc, true)}`;
      text.textContent = message;
      row.dataset.severity = severity ?? "";
      row.append(time, text);
      return row;
    });
    this.list.replaceChildren(...rows);
    this.settings.set("alert", this.#newest);
    this.#count();
  }

  #take(alerts) {
    const before = this.#newest;
    this.all = alerts.reverse();
    this.#newest = this.all.reduce((most, { alert_id: id }) => Math.max(most, id), 0);
    // Numbers begin anew with a new database.
    if (this.settings.alert > this.#newest) this.settings.set("alert", 0);
    const told = before === null ? null : this.all.find(({ alert_id: id }) => id > before);
    if (told) this.notify(told.message);
    this.frames.now(this.#write);
  }

  #count() {
    const unseen = this.all.filter(({ alert_id: id }) => id > this.settings.alert).length;
    const text = unseen === MOST ? `${MOST}+` : String(unseen || "");
    write(this.count, text);
    this.button.hidden = this.all.length === 0;
    this.button.dataset.state = unseen ? "new" : "";
    this.button.setAttribute("aria-label", unseen ? `Alerts: ${text} new` : "Alerts");
  }
}
