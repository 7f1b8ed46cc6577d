/** The strip at the bottom: how the server does. */

import { age, compact, milliseconds, whole } from "./format.js";
import { whileSeen, write } from "./frame.js";

const EVERY_MS = 2_000;

const FIELDS = [
  ["rate", "ticks/s", "Ticks accepted a second, of late"],
  ["lag", "lag", "From a tick's time to this page, median of the last two seconds"],
  ["buffer", "buffer", "Ticks on disk that are not in the database yet"],
  ["database", "database", "Whether the server reaches its database"],
  ["errors", "errors", "Refused rows and failed flushes since the server's start"],
  ["workers", "workers", "Worker processes"],
  ["uptime", "up", "Since the server's start"],
  ["warnings", "warnings", ""],
];

export class Status {
  #cells = {};
  #asking = false;
  /** The last answer; null when there is none. */
  #stats = null;
  #write = () => (this.#stats ? this.#show(this.#stats) : this.#away());

  /** isOpen(): whether there is a connection; without one nothing is asked. */
  constructor({ list, api, quotes, frames, isOpen }) {
    Object.assign(this, { api, quotes, frames, isOpen });
    for (const [name, label, title] of FIELDS) {
      const group = document.createElement("div");
      const term = document.createElement("dt");
      const value = document.createElement("dd");
      group.className = name;
      group.title = title;
      term.textContent = label;
      value.textContent = "–";
      group.append(term, value);
      list.append(group);
      this.#cells[name] = { group, value };
    }
    this.#cells.warnings.group.hidden = true;
  }

  start() {
    whileSeen(EVERY_MS, () => this.ask());
  }

  async ask() {
    if (!this.isOpen()) {
      this.#take(null);
      return;
    }
    if (this.#asking) return; // a server that hangs is not asked more and more
    this.#asking = true;
    try {
      this.#take(await this.api.get("/stats"));
    } catch {
      this.#take(null);
    } finally {
      this.#asking = false;
    }
  }

  #take(stats) {
    this.#stats = stats;
    this.frames.now(this.#write);
  }

  #show(stats) {
    const set = (name, text, state = "") => {
      write(this.#cells[name].value, text);
      this.#cells[name].group.dataset.state = state;
    };
    const lag = this.quotes.lag();
    set("rate", stats.ticks_per_second < 10 ? String(stats.ticks_per_second) : whole(stats.ticks_per_second));
    set("lag", milliseconds(lag), lag > 5000 ? "warn" : "");
    set("buffer", compact(stats.buffer_size), stats.buffer_size > 100_000 ? "warn" : "");
    set("database", stats.database_status, stats.database_status === "connected" ? "good" : "bad");
    set("errors", compact(stats.errors), stats.errors ? "warn" : "");
    set("workers", String(stats.workers), stats.workers ? "" : "bad");
    set("uptime", age(stats.uptime_seconds * 1000));
    set("warnings", String(stats.warnings?.length ?? 0), "warn");
    this.#cells.warnings.group.hidden = !stats.warnings?.length;
    this.#cells.warnings.group.title = stats.warnings?.join("\n") ?? "";
  }

  #away() {
    for (const { group, value } of Object.values(this.#cells)) {
      write(value, "–");
      group.dataset.state = "";
    }
  }
}
