/** The page: makes its parts and joins them. Each part is a module that knows its own concern only. */

import { Alerts } from "./alerts.js";
import { Api, Keys } from "./api.js";
import { Bars, placeOf } from "./bars.js";
import { Chart } from "./chart.js";
import { Clock } from "./clock.js";
import { segments } from "./controls.js";
import { Coverage } from "./coverage.js";
import { askInstrument, askKey, showAlerts, showHelp } from "./dialogs.js";
import { Frames, whileSeen, write } from "./frame.js";
import { Heading } from "./heading.js";
import { Instruments } from "./instruments.js";
import { Notice } from "./notice.js";
import { Quotes } from "./quotes.js";
import { Search } from "./search.js";
import { INTERVALS, MOST_WATCHED, Settings, SIDES, storageOf, THEMES } from "./settings.js";
import { Live } from "./socket.js";
import { Status } from "./status.js";
import { WatchList } from "./watchlist.js";

const INSTRUMENTS_MS = 60_000;
/** A new visitor's list is what has prices: on a server that begins, more of it every moment. */
const FIRST_INSTRUMENTS_MS = 5_000;
const LOAD_RETRY_MS = 1_000;

const byId = (id) => document.getElementById(id);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

const settings = new Settings(storageOf("localStorage"));
const clock = new Clock();
const frames = new Frames();
const notice = new Notice(byId("notice"), frames);
const notify = (text) => notice.say(text);
const keys = new Keys(storageOf("sessionStorage"), askKey);
const api = new Api(keys, clock);
const instruments = new Instruments(api);
const quotes = new Quotes(clock);
const heading = new Heading();

let symbol = null;
/** What the server said of symbols of which it gives no quotes: {code, message} by name. */
const refused = new Map();
let pointed = null;

const chart = new Chart(byId("chart"), {
  near: () => bars.older(),
  point: (bar) => {
    pointed = bar;
    frames.mark(writeLegend);
  },
});

const bars = new Bars(api, {
  reset: (all) => {
    chart.reset(all);
    frames.mark(writeLegend);
  },
  anew: () => chart.anew(),
  update: (bar, older) => {
    chart.update(bar, older);
    frames.mark(writeLegend);
  },
  state: () => frames.now(writeChartState),
});

const watch = new WatchList({
  body: byId("watch-rows"),
  empty: byId("watch-empty"),
  frames,
  quotes,
  instruments,
  clock,
  on: {
    choose,
    remove: (gone) => {
      const before = watched();
      settings.set("watch", before.filter((name) => name !== gone));
      const at = before.indexOf(gone);
      if (gone === symbol) choose(before[at + 1] ?? before[at - 1] ?? null);
      listed();
    },
    move: (moved, by) => {
      const names = watched();
      const at = names.indexOf(moved);
      const to = Math.max(0, Math.min(names.length - 1, at + by));
      names.splice(to, 0, ...names.splice(at, 1));
      settings.set("watch", names);
      listed();
    },
  },
});

const search = new Search({
  input: byId("search"),
  list: byId("found"),
  instruments,
  on: {
    choose: add,
    watched: (name) => watched().includes(name),
    add: async (name) => {
      const added = await askInstrument(name, (fields) => instruments.add(fields));
      if (added) add(added);
    },
  },
});

const live = new Live(socketUrl(), keys, {
  state: () => frames.mark(writeConnection),
  opened: () => {
    if (document.hidden) return; // all three ask when the page is seen
    status.ask();
    alerts.ask();
    bars.refresh();
  },
  message: received,
});

const status = new Status({ list: byId("status"), api, quotes, frames, isOpen: () => live.state === "open" });

const alerts = new Alerts({
  button: byId("alerts-open"),
  count: byId("alerts-new"),
  list: byId("alerts-list"),
  api,
  frames,
  settings,
  isOpen: () => live.state === "open",
  notify,
});

const coverage = new Coverage(api);

function socketUrl() {
  const url = new URL("/ws", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  return url.href;
}

/** The names on the list: those that the person chose, else what the server has prices of. */
function watched() {
  return [...(settings.watch ?? instruments.suggested())];
}

/** Show the list as it is now, and watch what is on it. */
function listed() {
  const names = watched();
  watch.show(names);
  const why = instruments.loaded
    ? "Nothing to watch yet. Find a symbol above, or press /"
    : "The server’s symbols cannot be read yet: they come as soon as its database answers";
  watch.explain(names.length ? "" : why);
  const wanted = symbol === null ? names : [...new Set([...names, symbol])];
  quotes.keepOnly(wanted);
  for (const name of refused.keys()) if (!wanted.includes(name)) refused.delete(name);
  watch.refused(refused);
  live.watch(wanted);
  const known = ({ symbol: name, code }) => code !== "unknown_symbol" || instruments.find(name);
  live.again([...refused.values()].filter(known).map((one) => one.symbol));
}

function add(name) {
  const names = watched();
  if (!names.includes(name) && names.length >= MOST_WATCHED) {
    notify(`The watch list is full with ${MOST_WATCHED} symbols: take one off it to add ${name}`);
    return;
  }
  if (!names.includes(name)) settings.set("watch", [...names, name]);
  choose(name);
  listed();
  watch.focus(name);
}

function choose(name) {
  if (name === symbol) return;
  symbol = name;
  settings.set("symbol", name);
  watch.choose(name);
  drawn();
}

/** Draw what is chosen. */
function drawn() {
  pointed = null;
  const { interval, side } = settings;
  chart.show(interval, side, instruments.digits(symbol));
  const label = symbol === null ? "Chart" : `${symbol}, bars of ${interval}, ${side}. Arrows move, + and − zoom`;
  byId("chart").setAttribute("aria-label", label);
  live.watchBars(symbol, interval);
  bars.open(symbol ?? "", interval, side);
  frames.mark(writeHeading);
}

function received(message) {
  if (message.type === "quote") {
    const { symbol: name } = message;
    if (!live.wants(name)) return;
    quotes.take(message);
    const more = [message.bid, message.ask, message.last].map((value) => instruments.learn(name, value));
    watch.changed(name);
    if (name !== symbol) return;
    if (more.includes(true)) chart.setDigits(instruments.digits(name));
    if (!document.hidden) bars.moved();
    frames.mark(writeHeading);
  } else if (message.type === "bar") {
    if (!document.hidden) bars.told(message); // what is missed is read when the page is seen again
  } else if (message.type === "heartbeat") {
    const ms = Date.parse(message.timestamp);
    if (Number.isFinite(ms)) clock.told(ms);
  } else if (message.type === "subscribed") {
    for (const name of message.symbols ?? []) refused.delete(name);
    for (const one of message.rejected ?? []) {
      if (!refused.has(one.symbol)) notify(one.message);
      refused.set(one.symbol, one);
    }
    watch.refused(refused);
  } else if (message.type === "error") {
    notify(message.message);
  }
}

function writeHeading() {
  const quote = quotes.get(symbol);
  const digits = instruments.digits(symbol);
  heading.symbol(symbol, instruments.nameOf(symbol));
  heading.quote(quote, digits);
  chart.quote(quote);
}

function writeLegend() {
  const bar = (pointed && chart.barAt(pointed.time)) ?? bars.all.at(-1) ?? null;
  const before = bar && bars.all[placeOf(bars.all, bar.time) - 1];
  const { interval } = settings;
  heading.bar(bar, before, {
    digits: instruments.digits(symbol),
    interval,
    utc: settings.zone === "utc",
    byTicks: chart.byTicks,
  });
}

function writeConnection() {
  const texts = { open: "live", connecting: "connecting", waiting: "reconnecting", paused: "paused" };
  byId("connection").dataset.state = keys.declined ? "waiting" : live.state;
  write(byId("connection-text"), keys.declined ? "needs a key" : texts[live.state]);
  document.body.dataset.connection = live.state;
}

function writeChartState() {
  const shown = { loading: "", ready: "", empty: "No bars yet: they come with the first ticks" };
  byId("chart").dataset.state = bars.state;
  write(byId("chart-state"), shown[bars.state] ?? bars.state);
}

const pickInterval = segments(byId("intervals"), "interval", INTERVALS, settings.interval, (interval) => {
  settings.set("interval", interval);
  drawn();
});
const pickSide = segments(byId("sides"), "side", SIDES, settings.side, (side) => {
  settings.set("side", side);
  drawn();
});

const THEME_SIGNS = { auto: ["◐", "as the system"], light: ["☀", "light"], dark: ["☾", "dark"] };

function themed() {
  const [sign, text] = THEME_SIGNS[settings.theme];
  if (settings.theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = settings.theme;
  write(byId("theme"), sign);
  byId("theme").setAttribute("aria-label", `Theme: ${text}`);
  byId("theme").title = `Theme: ${text} (t)`;
  chart.recolour();
}

function zoned() {
  const utc = settings.zone === "utc";
  write(byId("zone"), utc ? "UTC" : "Local");
  byId("zone").title = utc
    ? "Times are UTC (u)"
    : `Times are those of this computer: ${Intl.DateTimeFormat().resolvedOptions().timeZone} (u)`;
  chart.setUtc(utc);
  frames.mark(writeLegend);
}

const next = (choices, now, by = 1) => choices[(choices.indexOf(now) + by + choices.length) % choices.length];
const actions = {
  theme: () => {
    settings.set("theme", next(THEMES, settings.theme));
    themed();
  },
  zone: () => {
    settings.set("zone", settings.zone === "utc" ? "local" : "utc");
    zoned();
  },
  connection: async () => {
    if (keys.declined) {
      keys.declined = false;
      await instruments.load().catch((error) => notify(error.message));
      frames.mark(writeConnection);
      if (keys.declined) return;
      started();
    }
    live.retryNow();
  },
  "alerts-open": () => {
    alerts.seen();
    showAlerts();
  },
  "coverage-open": () => symbol !== null && coverage.open(symbol, instruments.find(symbol)?.calendar),
  "help-open": showHelp,
};
for (const [id, action] of Object.entries(actions)) byId(id).addEventListener("click", action);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => chart.recolour());

const SHORTCUTS = {
  "/": () => byId("search").focus(),
  "[": () => pickInterval(INTERVALS[INTERVALS.indexOf(settings.interval) - 1]),
  "]": () => pickInterval(INTERVALS[INTERVALS.indexOf(settings.interval) + 1]),
  p: () => pickSide(next(SIDES, settings.side)),
  c: actions["coverage-open"],
  t: actions.theme,
  u: actions.zone,
  "?": showHelp,
};

document.addEventListener("keydown", (event) => {
  // Where [ and ] are typed with AltGr, it counts as Ctrl and Alt.
  const commanding = (event.ctrlKey || event.altKey) && !event.getModifierState("AltGraph");
  if (commanding || event.metaKey || event.defaultPrevented) return;
  // A press on a dialog's empty part leaves the focus on the page behind it.
  if (document.querySelector("dialog[open]") || event.target.closest("input:not([type=radio])")) return;
  const action = SHORTCUTS[event.key];
  if (action) {
    event.preventDefault();
    action();
  } else if (event.key === "ArrowDown" && event.target === document.body && symbol !== null) {
    event.preventDefault();
    watch.focus(symbol);
  }
});

/** Load the instruments until they are there; then again now and then, for those that others add. */
async function loadInstruments() {
  for (;;) {
    try {
      await instruments.load();
      break;
    } catch (error) {
      notify(error.message);
      if (!keys.declined) started();
      frames.mark(writeConnection);
      do await sleep(Math.max(LOAD_RETRY_MS, error.retryAfterMs ?? 0));
      while (keys.declined || document.hidden);
    }
  }
  started();
  chart.setDigits(instruments.digits(symbol));
  frames.mark(writeHeading);
  notify("");
  const shownAt = performance.now();
  whileSeen(FIRST_INSTRUMENTS_MS, async () => {
    const settled = settings.watch !== null || performance.now() - shownAt > INSTRUMENTS_MS;
    if (live.state !== "open" || instruments.ageMs < (settled ? INSTRUMENTS_MS : FIRST_INSTRUMENTS_MS / 2)) return;
    await freshen();
  });
}

/** Learn of instruments that others added, and of prices that came. */
async function freshen() {
  await instruments.load().catch(() => {}); // what is known stays
  frames.now(listed);
}

let isStarted = false;

/** Show the list, choose a symbol, connect: also while the database, and so the instruments, are away. */
function started() {
  if (symbol === null) choose(settings.symbol ?? watched()[0] ?? null);
  listed();
  if (isStarted) return;
  isStarted = true;
  live.start();
  status.start();
  alerts.start();
  whileSeen(1_000, () => watch.ages());
}

themed();
zoned();
document.addEventListener("visibilitychange", () => {
  if (document.hidden) bars.rest();
  else bars.refresh();
});
loadInstruments();

/** For the console, and for tests. */
window.tickhub = { chart, bars, live, quotes, settings, search, watch, received, freshen };
