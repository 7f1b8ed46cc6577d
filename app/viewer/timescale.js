/** The chart's time axis in UTC or in the browser's zone, right on the days when clocks are set.

The library knows UTC only, and shifting every time by the zone's offset, as its manual says, gives one hour of autumn
twice. So times stay as they are, and what is told otherwise is where a day, a month, a year begins, and each label. */

import { clockTime, dateOf, dayOf, monthOf, partsOf, yearOf } from "./format.js";

const { defaultHorzScaleBehavior, TickMarkType } = window.LightweightCharts;

/** How much a mark counts, as the library has it. */
const WEIGHTS = [
  [12 * 3600, 33],
  [6 * 3600, 32],
  [3 * 3600, 31],
  [3600, 30],
  [1800, 22],
  [300, 21],
  [60, 20],
  [1, 10],
];
const [YEAR, MONTH, DAY] = [70, 60, 50];

/** Return how much the first bar at `time` counts after one at `before` (s) on the browser's clock. */
export function localWeight(time, before) {
  const now = partsOf(time * 1000, false);
  const then = partsOf(before * 1000, false);
  if (now[0] !== then[0]) return YEAR;
  if (now[1] !== then[1]) return MONTH;
  if (now[2] !== then[2]) return DAY;
  const seconds = (parts) => (parts[3] * 60 + parts[4]) * 60 + parts[5];
  for (const [length, weight] of WEIGHTS) {
    if (Math.floor(seconds(now) / length) !== Math.floor(seconds(then) / length)) return weight;
  }
  return 0;
}

export class ZonedTime extends defaultHorzScaleBehavior() {
  utc = true;

  fillWeightsForPoints(points, start) {
    super.fillWeightsForPoints(points, start);
    if (this.utc) return;
    for (let at = Math.max(1, start); at < points.length; at += 1) {
      points[at].timeWeight = localWeight(points[at].originalTime, points[at - 1].originalTime);
    }
  }
}

/** Label of a mark on the axis. */
export function markLabel(time, type, utc) {
  const ms = time * 1000;
  if (type === TickMarkType.Year) return yearOf(ms, utc);
  if (type === TickMarkType.Month) return monthOf(ms, utc);
  if (type === TickMarkType.DayOfMonth) return dayOf(ms, utc);
  return clockTime(ms, utc, type === TickMarkType.TimeWithSeconds);
}

/** A bar's time in full; of whole days only the date. */
export function fullLabel(time, { utc, days, seconds }) {
  const date = dateOf(time * 1000, utc);
  return days ? date : `${date} ${clockTime(time * 1000, utc, seconds)}`;
}
