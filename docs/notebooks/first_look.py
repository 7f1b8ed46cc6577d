# %% [markdown]
# # A first look at a day of ticks
#
# With a server running (`scripts/serve`), this sends a day of made-up ticks to it, reads them back into pandas, polars
# and Arrow, makes five-minute bars of them, compares these with the server's, and draws the day. The `# %%` lines make
# cells of it in Jupyter and VS Code; as a plain script it runs all the same:
#
#     pip install numpy pandas polars pyarrow matplotlib
#     python docs/notebooks/first_look.py

# %%
import json
import math
import os
import random
import time
import urllib.error
import urllib.request

import matplotlib
import pandas as pd
import polars as pl
import pyarrow as pa

matplotlib.use("Agg")  # draw into a file, on any machine
import matplotlib.pyplot as plt

SERVER = os.environ.get("MARKET_SERVER", "http://127.0.0.1:5000")


def ask(path, body=None):
    """GET a path of the server, or POST a body to it; return the JSON that it answers."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(SERVER + path, data)) as answer:
        return json.load(answer)


# %% [markdown]
# ## A day to look at
#
# The instrument is called EXAMPLE, so that nothing here touches real ones. The ticks have a `seq`, so running this
# again changes nothing: the server knows them all.

# %%
try:
    ask("/api/symbols", {"symbol": "EXAMPLE", "name": "A made-up share", "currency": "USD", "digits": 2})
except urllib.error.HTTPError as error:
    if error.code != 409:  # it is there from the last time
        raise


def made_up_day(count=20_000, seed=7):
    """Return ticks from 14:30 to 21:00 UTC: quotes busier at both ends of the session, one tick in eight a trade."""
    dice = random.Random(seed)
    opening, session_s = 1_768_314_600, 6.5 * 3600  # 2026-01-13 14:30 UTC
    moments = sorted(
        int(session_s * 1000 * (0.5 - 0.5 * math.copysign(abs(2 * u - 1) ** 0.7, 1 - 2 * u)))
        for u in (dice.random() for _ in range(count))
    )
    cents, ticks = 43_210, []
    for seq, moment_ms in enumerate(moments):
        cents += dice.randrange(-3, 4)
        spread = dice.randrange(1, 6)
        tick = {"symbol": "EXAMPLE", "timestamp": opening * 1000 + moment_ms, "seq": seq, "spread": spread}
        tick |= {"bid": cents / 100, "ask": (cents + spread) / 100, "volume": 0, "flags": 6}
        if dice.random() < 0.125:
            bought = dice.random() < 0.5
            price = tick["ask"] if bought else tick["bid"]
            tick |= {"last": price, "volume": dice.randrange(1, 500), "flags": 6 + 8 + 16 + (32 if bought else 64)}
        ticks.append(tick)
    return ticks


sent = made_up_day()
for start in range(0, len(sent), 5000):
    assert ask("/tick/batch", {"ticks": sent[start : start + 5000]})["status"] == "success"
while ask("/stats")["buffer_size"]:
    time.sleep(0.1)  # accepted is safe; a moment later it is in the database
print(f"{len(sent):,} ticks are stored")

# %% [markdown]
# ## The same ticks in pandas, polars and Arrow
#
# CSV into pandas, Parquet into polars, an Arrow stream into Arrow. Times are UTC and typed, not text.

# %%
DAY = f"{SERVER}/api/ticks/EXAMPLE?start=2026-01-13&end=2026-01-14"

by_pandas = pd.read_csv(f"{DAY}&format=csv", parse_dates=["timestamp"])
print(by_pandas.dtypes.to_string())
print()
print(by_pandas[["timestamp", "bid", "ask", "last", "volume", "flags"]].head().to_string(index=False))

# %%
by_polars = pl.read_parquet(f"{DAY}&format=parquet")
with pl.Config(tbl_width_chars=100):
    print(by_polars.select("timestamp", "bid", "ask", "last", "volume", "flags").head())

# %%
with urllib.request.urlopen(f"{DAY}&format=arrow") as answer:
    by_arrow = pa.ipc.open_stream(answer).read_all()
print(f"{by_arrow.num_rows:,} rows, {by_arrow.schema.field('timestamp').type}")

# %% [markdown]
# The values are the same to the last bit, whatever way they came:

# %%
print("polars and Arrow:", by_polars.equals(pl.from_arrow(by_arrow)))
print("pandas and Arrow:", by_pandas["bid"].tolist() == by_arrow["bid"].to_pylist())
print("sent and stored: ", [tick["bid"] for tick in sent] == by_arrow["bid"].to_pylist())

# %% [markdown]
# ## Five-minute bars, made here and made there
#
# A bar of bids takes every tick that has a bid; volume is that of trades alone (`flags & 8`), since a quote repeats the
# volume of the trade before it.

# %%
bars = by_pandas.set_index("timestamp")["bid"].resample("5min").ohlc().dropna()
trades = by_pandas[by_pandas["flags"] & 8 != 0].set_index("timestamp")
bars["volume"] = trades["volume"].resample("5min").sum().reindex(bars.index, fill_value=0.0)
print(bars.head().reset_index().to_string(index=False))

# %%
same_by_polars = by_polars.group_by_dynamic("timestamp", every="5m").agg(
    open=pl.col("bid").first(),
    high=pl.col("bid").max(),
    low=pl.col("bid").min(),
    close=pl.col("bid").last(),
    volume=pl.col("volume").filter(pl.col("flags") & 8 != 0).sum(),
)
served = pd.read_csv(
    f"{SERVER}/api/bars/EXAMPLE?interval=5m&start=2026-01-13&end=2026-01-14&format=csv",
    parse_dates=["timestamp"],
    index_col="timestamp",
)
columns = ["open", "high", "low", "close", "volume"]
print(f"{len(served)} bars")
print("pandas' are the server's:", bars.equals(served[columns]))
print("polars' are the server's:", same_by_polars.rows() == list(served[columns].itertuples(name=None)))

# %% [markdown]
# ## The day in a chart

# %%
figure, (above, below) = plt.subplots(2, sharex=True, figsize=(9, 5), height_ratios=[3, 1], layout="constrained")
colours = (served["close"] >= served["open"]).map({True: "#26a69a", False: "#ef5350"})
above.vlines(served.index, served["low"], served["high"], color=colours, linewidth=1)
above.vlines(served.index, served["open"], served["close"], color=colours, linewidth=4)
above.set_title("EXAMPLE, 2026-01-13, five-minute bars (bid)")
above.set_ylabel("USD")
below.bar(served.index, served["buy_volume"], width=0.003, color="#26a69a", label="bought")
below.bar(served.index, -served["sell_volume"], width=0.003, color="#ef5350", label="sold")
below.set_ylabel("shares")
below.legend(frameon=False, ncols=2, fontsize="small", loc="lower right", bbox_to_anchor=(1, 0.97))
below.xaxis.set_major_formatter(matplotlib.dates.DateFormatter("%H:%M", tz="UTC"))
figure.savefig("first_look.png", dpi=100)

# %% [markdown]
# ![five-minute bars and the volume of the day](first_look.png)
