/** The candlestick chart: draws bars, follows the pointer and the keyboard, knows no server. */

import { placeOf, secondsOf } from "./bars.js";
import { price } from "./format.js";
import { fullLabel, markLabel, ZonedTime } from "./timescale.js";

const { CandlestickSeries, createChartEx, HistogramSeries, LineStyle } = window.LightweightCharts;

const NEAR_BARS = 100;
const VOLUME_SHARE = 0.18;
/** A narrow chart shows fewer bars at first, and its legend takes two lines. */
const NARROW_PX = 600;
const FIRST_BARS = { narrow: 60, wide: 130 };
const TOP_SHARE = { narrow: 0.16, wide: 0.08 };

/** The colours that the stylesheet gives the chart, as the browser makes them for the theme of now. */
function colours() {
  const probe = document.createElement("i");
  probe.hidden = true;
  document.body.append(probe);
  const names = ["up", "down", "text-2", "grid", "panel", "bid", "ask", "vol-up", "vol-down", "vol"];
  const found = {};
  for (const name of names) {
    probe.style.color = `var(--${name})`;
    found[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  return found;
}

export class Chart {
  #bars = [];
  #time = new ZonedTime();
  #shown = { interval: "1m", utc: true, digits: 2 };
  #lines = {};
  #byTicks = false;
  #fresh = true;

  /** on: {near(): the first bars are in sight, point(bar or null): the pointer is on another one}. */
  constructor(box, on) {
    this.box = box;
    this.on = on;
    const width = box.clientWidth < NARROW_PX ? "narrow" : "wide";
    this.api = createChartEx(box, this.#time, {
      autoSize: true,
      layout: { attributionLogo: false, fontFamily: getComputedStyle(box).fontFamily, fontSize: 11 },
      rightPriceScale: { borderVisible: false, scaleMargins: { top: TOP_SHARE[width], bottom: VOLUME_SHARE + 0.04 } },
      timeScale: { borderVisible: false, rightOffset: 4, minBarSpacing: 0.3 },
      localization: {
        priceFormatter: (value) => price(value, this.#shown.digits),
        timeFormatter: (time) => fullLabel(time, this.#labels()),
      },
    });
    const volume = { priceScaleId: "volume", priceFormat: { type: "volume" }, lastValueVisible: false };
    volume.priceLineVisible = false;
    // One over the other: all, over it what has a side, over it what was bought.
    this.volumes = ["vol", "vol-down", "vol-up"].map(() => this.api.addSeries(HistogramSeries, volume));
    this.api.priceScale("volume").applyOptions({ scaleMargins: { top: 1 - VOLUME_SHARE, bottom: 0 } });
    this.candles = this.api.addSeries(CandlestickSeries, { priceLineVisible: false, borderVisible: false });
    for (const side of ["ask", "bid"]) {
      this.#lines[side] = this.candles.createPriceLine({
        price: 0,
        lineVisible: false,
        axisLabelVisible: false,
        lineStyle: LineStyle.Dotted,
        lineWidth: 1,
      });
    }
    this.api.timeScale().subscribeVisibleLogicalRangeChange((range) => {
      if (range && this.#bars.length && range.from < NEAR_BARS) this.on.near();
    });
    this.api.subscribeCrosshairMove(({ time }) => this.on.point(time === undefined ? null : this.barAt(time)));
    box.addEventListener("keydown", (event) => this.#key(event));
    this.recolour();
  }

  /** Prepare for other bars; they come with `reset`. */
  show(interval, side, digits) {
    Object.assign(this.#shown, { interval, digits });
    this.anew();
    this.candles.applyOptions({
      lastValueVisible: side === "mid" || side === "last",
      priceFormat: { type: "price", precision: digits, minMove: 10 ** -digits },
    });
    const days = this.#labels().days;
    this.api.applyOptions({
      timeScale: {
        timeVisible: !days,
        secondsVisible: interval.endsWith("s"),
        tickMarkFormatter: (time, type) => markLabel(time, type, this.#labels().utc),
      },
    });
    this.#time.utc = this.#labels().utc;
    this.api.priceScale("right").applyOptions({ autoScale: true });
    this.quote(null);
  }

  /** Show the end of the bars that come next, as at first. */
  anew() {
    this.#fresh = true;
  }

  setDigits(digits) {
    this.#shown.digits = digits;
    this.candles.applyOptions({ priceFormat: { type: "price", precision: digits, minMove: 10 ** -digits } });
  }

  setUtc(utc) {
    this.#shown.utc = utc;
    this.#time.utc = this.#labels().utc;
    const range = this.api.timeScale().getVisibleLogicalRange();
    // Marks are weighed when points come in anew.
    const bars = this.#bars;
    this.reset([]);
    this.reset(bars);
    if (range && bars.length) this.api.timeScale().setVisibleLogicalRange(range);
  }

  recolour() {
    const of = colours();
    this.api.applyOptions({
      layout: { background: { color: of.panel }, textColor: of["text-2"] },
      grid: { vertLines: { color: of.grid }, horzLines: { color: of.grid } },
    });
    this.candles.applyOptions({
      upColor: of.up,
      downColor: of.down,
      wickUpColor: of.up,
      wickDownColor: of.down,
    });
    ["vol", "vol-down", "vol-up"].forEach((name, at) => this.volumes[at].applyOptions({ color: of[name] }));
    for (const side of ["ask", "bid"]) {
      this.#lines[side].applyOptions({ color: of[side], axisLabelColor: of[side], axisLabelTextColor: of.panel });
    }
  }

  /** Draw these bars, ascending. They are not copied. */
  reset(bars) {
    this.#bars = bars;
    this.#byTicks = !bars.some((bar) => bar.volume > 0);
    this.candles.setData(bars.map(candleOf));
    this.volumes.forEach((series, at) => series.setData(bars.map((bar) => this.#volumeOf(bar, at))));
    if (this.#fresh && bars.length) {
      this.#fresh = false;
      const first = FIRST_BARS[this.box.clientWidth < NARROW_PX ? "narrow" : "wide"];
      this.api.timeScale().setVisibleLogicalRange({ from: bars.length - first, to: bars.length + 4 });
    }
  }

  /** Draw one bar that is new or has changed. older: it is not the last one. */
  update(bar, older) {
    if (this.#byTicks && bar.volume > 0) {
      this.reset(this.#bars);
      return;
    }
    this.candles.update(candleOf(bar), older);
    this.volumes.forEach((series, at) => series.update(this.#volumeOf(bar, at), older));
  }

  /** Draw lines at the newest bid and ask, none where there is none. */
  quote(quote) {
    for (const side of ["ask", "bid"]) {
      const value = quote?.[side];
      const there = value != null && value > 0;
      this.#lines[side].applyOptions({ price: there ? value : 0, lineVisible: there, axisLabelVisible: there });
    }
  }

  /** Tell whether volume is counted in ticks, for want of trades. */
  get byTicks() {
    return this.#byTicks;
  }

  barAt(time) {
    const bar = this.#bars[placeOf(this.#bars, time)];
    return bar?.time === time ? bar : null;
  }

  #volumeOf(bar, at) {
    const { volume, buy, sell, ticks } = bar;
    if (this.#byTicks) return { time: bar.time, value: at ? 0 : ticks };
    return { time: bar.time, value: [volume, (buy ?? 0) + (sell ?? 0), buy ?? 0][at] };
  }

  /** Bars of days begin at midnight UTC, wherever the browser is. */
  #labels() {
    const days = secondsOf(this.#shown.interval) >= 86_400;
    return { days, utc: days || this.#shown.utc, seconds: this.#shown.interval.endsWith("s") };
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const scale = this.api.timeScale();
    const range = scale.getVisibleLogicalRange();
    if (!range) return;
    const width = range.to - range.from;
    const moveBy = (bars) => scale.setVisibleLogicalRange({ from: range.from + bars, to: range.to + bars });
    const zoomBy = (factor) => scale.setVisibleLogicalRange({ from: range.to - width * factor, to: range.to });
    const actions = {
      ArrowLeft: () => moveBy(-width / (event.shiftKey ? 1 : 10)),
      ArrowRight: () => moveBy(width / (event.shiftKey ? 1 : 10)),
      "+": () => width > 12 && zoomBy(0.8),
      "=": () => width > 12 && zoomBy(0.8),
      "-": () => zoomBy(1.25),
      Home: () => moveBy(-range.from),
      End: () => scale.scrollToRealTime(),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  }
}

const candleOf = ({ time, open, high, low, close }) => ({ time, open, high, low, close });
