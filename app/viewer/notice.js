/** The line that tells what has just happened, for some seconds. */

import { write } from "./frame.js";

const NOTICE_MS = 8_000;

export class Notice {
  #text = "";
  #timer = 0;
  #write = () => write(this.node, this.#text);

  constructor(node, frames) {
    Object.assign(this, { node, frames });
  }

  /** Tell of something instead of what was told before; "": of nothing. */
  say(text) {
    this.#text = text;
    this.frames.now(this.#write);
    clearTimeout(this.#timer);
    if (text) this.#timer = setTimeout(() => this.say(""), NOTICE_MS);
  }
}
