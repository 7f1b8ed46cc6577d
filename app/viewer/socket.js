/** The connection to /ws: kept up for ever, and what it should be told again after every reconnect.

States: "connecting", "open", "waiting" (until `retryAt`), "paused" (the page is hidden for long). */

const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 15_000;
const STEADY_MS = 10_000;
const CONNECT_MS = 10_000;
const QUIET_MS = 10_000;
const PONG_MS = 5_000;
const LOOK_MS = 1_000;
const HIDDEN_MS = 60_000;
const CONFLATE_MS = 100;
/** A clock that jumped by so much: the computer slept. */
const SLEPT_MS = 5_000;
/** Who goes through a list quickly watches the bars where they stop: the server takes 50 messages a second. */
const SETTLE_MS = 150;
const POLICY = 1008;

/** Return how long to wait before try number `tries` (from 0): doubled each time, and never all clients at once. */
export function backoffMs(tries, random = Math.random) {
  const most = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.min(tries, 10));
  return most * (0.5 + random() / 2);
}

export class Live {
  state = "connecting";
  retryAt = 0;
  #socket = null;
  #tries = 0;
  #openedAt = 0;
  #heardAt = 0;
  #pingedAt = 0;
  #timer = 0;
  #hiddenTimer = 0;
  #refused = "";
  #quotes = new Set();
  #bars = null;
  #barsTold = null;
  #barsTimer = 0;
  #lookedAt = 0;

  /** on: {state(), message(object), opened(), refused(why): a promise whether to try again}. */
  constructor(url, keys, on, { Socket = WebSocket, now = () => performance.now(), wall = Date.now } = {}) {
    this.url = url;
    this.keys = keys;
    this.on = on;
    this.Socket = Socket;
    this.now = now;
    this.wall = wall;
  }

  start() {
    window.addEventListener("online", () => this.#doubt());
    // A page that is left and comes back from the browser's cache has a dead socket.
    window.addEventListener("pageshow", (event) => event.persisted && this.retryNow());
    document.addEventListener("visibilitychange", () => this.#seen());
    this.#lookedAt = this.wall();
    setInterval(() => this.#look(), LOOK_MS);
    this.#connect();
  }

  /** Connect at once if there is no connection. */
  retryNow() {
    if (this.state === "open" || this.state === "connecting") return;
    this.#tries = 0;
    this.#connect();
  }

  /** Watch the quotes of exactly these symbols. */
  watch(symbols) {
    const wanted = new Set(symbols);
    const added = [...wanted].filter((name) => !this.#quotes.has(name));
    const gone = [...this.#quotes].filter((name) => !wanted.has(name));
    this.#quotes = wanted;
    if (gone.length) this.#say({ action: "unsubscribe", symbols: gone, channels: ["quotes"] });
    if (added.length) this.#subscribeQuotes(added);
  }

  /** Tell whether a symbol's quotes are watched: some that were asked for before may still come. */
  wants(symbol) {
    return this.#quotes.has(symbol);
  }

  /** Ask again for symbols that the server refused. */
  again(symbols) {
    if (symbols.length) this.#subscribeQuotes(symbols);
    if (symbols.includes(this.#bars?.symbol)) {
      this.#barsTold = null;
      this.#tellBars();
    }
  }

  /** Watch the bars of one symbol and interval, of none when it is null. */
  watchBars(symbol, interval) {
    this.#bars = symbol === null ? null : { symbol, interval };
    clearTimeout(this.#barsTimer);
    this.#barsTimer = setTimeout(() => this.#tellBars(), SETTLE_MS);
  }

  #tellBars() {
    const [before, now] = [this.#barsTold, this.#bars];
    if (this.#socket?.readyState !== 1) return; // told with the next connection
    if (before?.symbol === now?.symbol && before?.interval === now?.interval) return;
    this.#barsTold = now;
    if (before) this.#sayBars("unsubscribe", before);
    if (now) this.#sayBars("subscribe", now);
  }

  #subscribeQuotes(symbols) {
    this.#say({ action: "subscribe", symbols, channels: ["quotes"], conflate_ms: CONFLATE_MS, batch: true });
  }

  #sayBars(action, { symbol, interval }) {
    this.#say({ action, symbols: [symbol], channels: ["bars"], interval });
  }

  #say(message) {
    if (this.#socket?.readyState === 1) this.#socket.send(JSON.stringify(message));
  }

  #connect() {
    clearTimeout(this.#timer);
    this.#drop();
    const socket = new this.Socket(this.url);
    this.#socket = socket;
    this.#refused = "";
    this.#barsTold = null;
    this.#openedAt = 0;
    this.#pingedAt = 0;
    this.#heardAt = this.now();
    const key = this.keys.current;
    socket.onopen = () => {
      this.#openedAt = this.#heardAt = this.now();
      if (key) this.#say({ action: "auth", key });
      if (this.#quotes.size) this.#subscribeQuotes([...this.#quotes]);
      this.#tellBars();
      this.#enter("open");
      this.on.opened();
    };
    socket.onmessage = ({ data }) => {
      this.#heardAt = this.now();
      this.#pingedAt = 0;
      let said;
      try {
        said = JSON.parse(data);
      } catch {
        return; // not ours; the next frame may be
      }
      for (const message of Array.isArray(said) ? said : [said]) {
        if (message?.type === "error" && ["unauthorized", "forbidden"].includes(message.code)) {
          this.#refused = message.message || message.code;
        }
        if (message?.type) this.on.message(message);
      }
    };
    socket.onclose = ({ code, reason }) => this.#closed(code, reason, key);
    this.#enter("connecting");
  }

  async #closed(code, reason, key) {
    this.#drop();
    if (document.hidden && this.state === "paused") return;
    if (code === POLICY && this.#refused) {
      this.#enter("waiting");
      const other = await this.keys.other(key, key ? this.#refused || reason : "");
      if (this.state !== "waiting") return;
      this.#tries = 0;
      if (!other) {
        this.#enter("waiting"); // for whoever gives one: `retryNow`
        return;
      }
    } else if (this.#openedAt && this.now() - this.#openedAt > STEADY_MS) {
      this.#tries = 0;
    }
    const waitMs = backoffMs(this.#tries);
    this.#tries += 1;
    this.retryAt = this.now() + waitMs;
    this.#timer = setTimeout(() => this.#connect(), waitMs);
    this.#enter("waiting");
  }

  /** Forget the socket at once: closing one that is dead can take the browser a minute. */
  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    if (socket.readyState < 2) socket.close();
  }

  #look() {
    const wall = this.wall();
    // A socket that was open before the computer slept may be dead without a word.
    if (Math.abs(wall - this.#lookedAt) > SLEPT_MS) this.#doubt();
    this.#lookedAt = wall;
    const quietMs = this.now() - this.#heardAt;
    if (this.state === "connecting" && this.#socket && quietMs > CONNECT_MS) {
      this.#closed(0, "", this.keys.current);
    } else if (this.state === "open") {
      if (this.#pingedAt && this.now() - this.#pingedAt > PONG_MS) {
        this.#closed(0, "", this.keys.current);
      } else if (!this.#pingedAt && quietMs > QUIET_MS) {
        this.#ping();
      }
    }
  }

  #ping() {
    this.#pingedAt = this.now();
    this.#say({ action: "ping" });
  }

  /** The way to the server may be another one: look at once whether the connection is alive, or make one. */
  #doubt() {
    if (this.state === "paused" && document.hidden) return; // made again when the page is seen
    if (this.state !== "open") this.retryNow();
    else if (!this.#pingedAt) this.#ping();
  }

  #seen() {
    clearTimeout(this.#hiddenTimer);
    if (!document.hidden) {
      this.#doubt();
      return;
    }
    this.#hiddenTimer = setTimeout(() => {
      clearTimeout(this.#timer);
      this.#enter("paused");
      this.#drop();
    }, HIDDEN_MS);
  }

  #enter(state) {
    this.state = state;
    this.on.state();
  }
}
