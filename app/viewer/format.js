/** Numbers and times as people read them. Pure. */

const NONE = "–";
const MINUS = "−";
const MOST_DIGITS = 15;

const plain = new Map();

function plainFormat(digits) {
  let found = plain.get(digits);
  if (!found) {
    found = new Intl.NumberFormat("en-US", {
      minimumFractionDigits: digits,
      maximumFractionDigits: digits,
      useGrouping: false,
    });
    plain.set(digits, found);
  }
  return found;
}

/** A price with the instrument's digits. */
export function price(value, digits) {
  if (value == null || !Number.isFinite(value)) return NONE;
  return plainFormat(Math.min(digits, MOST_DIGITS)).format(value).replace("-", MINUS);
}

/** The same with its sign. */
export function signed(value, digits) {
  if (value == null || !Number.isFinite(value)) return NONE;
  const text = price(Math.abs(value), digits);
  if (Number(text) === 0) return text;
  return (value > 0 ? "+" : MINUS) + text;
}

export function percent(value) {
  return value == null ? NONE : `${signed(value, 2)}%`;
}

/** A spread in points: whole ones mostly. */
export function points(value) {
  if (value == null || !Number.isFinite(value)) return NONE;
  return price(value, Number.isInteger(value) || Math.abs(value) >= 1000 ? 0 : 1);
}

/** A large number in four or five characters. */
export function compact(value) {
  if (value == null || !Number.isFinite(value)) return NONE;
  const size = Math.abs(value);
  for (const [unit, name] of [
    [1e12, "T"],
    [1e9, "G"],
    [1e6, "M"],
    [1e4, "k"],
  ]) {
    if (size < unit) continue;
    const scaled = value / (unit === 1e4 ? 1e3 : unit);
    return scaled.toFixed(Math.abs(scaled) < 100 ? 1 : 0) + name;
  }
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)));
}

export function whole(value) {
  return value == null ? NONE : Math.round(value).toLocaleString("en-US").replaceAll(",", "\u202f");
}

/** How long ago, in one unit. */
export function age(ms) {
  if (ms == null || !Number.isFinite(ms)) return NONE;
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 1) return "now";
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m`;
  if (s < 86_400) return `${Math.floor(s / 3600)}h`;
  const days = Math.floor(s / 86_400);
  return days < 1000 ? `${days}d` : `${Math.floor(days / 365.25)}y`;
}

export function milliseconds(ms) {
  if (ms == null || !Number.isFinite(ms)) return NONE;
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  return age(ms);
}

/** Decimals of a number as it is written, at most `most`. */
export function decimalsOf(value, most) {
  const text = String(value);
  const exponent = /e-(\d+)$/.exec(text);
  if (exponent) return Math.min(most, Number(exponent[1]));
  const dot = text.indexOf(".");
  return dot < 0 ? 0 : Math.min(most, text.length - dot - 1);
}

const two = (number) => String(number).padStart(2, "0");

/** Year, month (0 to 11), day, hours, minutes, seconds of a moment (ms) in UTC or in the browser's zone. */
export function partsOf(ms, utc) {
  const date = new Date(ms);
  return utc
    ? [
        date.getUTCFullYear(),
        date.getUTCMonth(),
        date.getUTCDate(),
        date.getUTCHours(),
        date.getUTCMinutes(),
        date.getUTCSeconds(),
      ]
    : [
        date.getFullYear(),
        date.getMonth(),
        date.getDate(),
        date.getHours(),
        date.getMinutes(),
        date.getSeconds(),
      ];
}

export function clockTime(ms, utc, seconds) {
  const [, , , hours, minutes, s] = partsOf(ms, utc);
  return `${two(hours)}:${two(minutes)}${seconds ? `:${two(s)}` : ""}`;
}

export function dateOf(ms, utc) {
  const [year, month, day] = partsOf(ms, utc);
  return `${year}-${two(month + 1)}-${two(day)}`;
}

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

export const monthOf = (ms, utc) => MONTHS[partsOf(ms, utc)[1]];
export const dayOf = (ms, utc) => `${partsOf(ms, utc)[2]} ${monthOf(ms, utc)}`;
export const yearOf = (ms, utc) => String(partsOf(ms, utc)[0]);
