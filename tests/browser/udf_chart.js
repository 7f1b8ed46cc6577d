"use strict";

/* A chart of one symbol: ?feed=URL&symbol=NAME&resolution=R. What it drew is at window.shown. */

const PAGE_BARS = 300;
const POLL_MS = 300;
const NEAR_BARS = 20;

const params = new URLSearchParams(location.search);
const byId = (id) => document.getElementById(id);

async function main() {
  const feed = new UdfDatafeed(params.get("feed"));
  const config = await feed.config();
  const symbol = await feed.symbol(params.get("symbol"));
  const precision = Math.round(Math.log10(symbol.pricescale));
  const chart = LightweightCharts.createChart(byId("chart"), {
    autoSize: true,
    timeScale: { timeVisible: true },
    localization: { priceFormatter: (price) => price.toFixed(precision) },
  });
  const series = chart.addSeries(LightweightCharts.CandlestickSeries, {
    priceFormat: { type: "price", precision, minMove: symbol.minmov / symbol.pricescale },
  });
  byId("symbol").textContent = symbol.description;
  for (const name of config.supported_resolutions) byId("resolution").add(new Option(name, name));

  let resolution = params.get("resolution") || "1";
  let bars = [];
  let complete = false;
  let loading = false;
  let chosen = 0;
  byId("resolution").value = resolution;

  const state = (text) => (byId("state").textContent = text);

  /** Load the bars before the first one, or the newest ones. */
  async function loadBack() {
    if (loading || complete) return;
    loading = true;
    state("loading");
    const choice = chosen;
    let to = bars.length ? bars[0].time : (await feed.time()) + 1;
    let found;
    do {
      const from = to - PAGE_BARS * lengthOf(resolution);
      found = await feed.bars(symbol, resolution, { from, to, countback: PAGE_BARS });
      if (found.noData && found.nextTime >= to) throw new Error("nextTime leads forward");
      to = found.nextTime + 1;
    } while (found.noData && found.nextTime !== undefined);
    loading = false;
    if (choice !== chosen) return loadBack();
    complete = found.noData;
    bars = [...found.bars, ...bars];
    series.setData(bars);
    state(complete ? "complete" : "ready");
  }

  /** Take the running bar, and the one before: it may have ended since. */
  async function poll() {
    const choice = chosen;
    const now = (await feed.time()) + 1;
    const found = await feed.bars(symbol, resolution, { from: now - 10 * lengthOf(resolution), to: now, countback: 2 });
    const quote = await feed.quote(symbol.name);
    if (quote.s === "ok" && quote.v.lp !== undefined) byId("price").textContent = quote.v.lp.toFixed(precision);
    if (choice !== chosen || loading) return;
    for (const bar of found.bars) {
      const last = bars.at(-1);
      if (last && bar.time < last.time) {
        if (bars.at(-2)?.time === bar.time) series.update((bars[bars.length - 2] = bar), true);
        continue;
      }
      if (last && last.time === bar.time) bars.pop();
      bars.push(bar);
      series.update(bar);
    }
  }

  chart.timeScale().subscribeVisibleLogicalRangeChange((range) => {
    if (range && range.from < NEAR_BARS) loadBack().catch(fail);
  });
  byId("resolution").addEventListener("change", () => {
    chosen += 1;
    resolution = byId("resolution").value;
    bars = [];
    complete = false;
    series.setData([]);
    loadBack().catch(fail);
  });
  window.shown = { chart, series };
  await loadBack();
  for (;;) {
    await poll();
    await new Promise((done) => setTimeout(done, POLL_MS));
  }
}

function fail(error) {
  byId("state").textContent = `failed: ${error.message}`;
  console.error(error);
}

main().catch(fail);
