"""`import MetaTrader5` for a subprocess: serves one symbol from a CSV whose path is in MT5_STAND_IN.

Ticks "arrive" as the process asks: each question sees a few more of them, often in the middle of a millisecond.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import terminal as stand_in

COPY_TICKS_ALL = stand_in.StandInTerminal.COPY_TICKS_ALL
RES_S_OK = stand_in.StandInTerminal.RES_S_OK

_path = Path(os.environ["MT5_STAND_IN"])
_symbol = _path.name.split("_")[0]
_all = stand_in.load(_path.read_text().splitlines()[1:])
_terminal = stand_in.StandInTerminal()
_terminal.symbols[_symbol] = stand_in.Symbol(_all[:1], 0.0001)
_shown = 1

initialize = _terminal.initialize
shutdown = _terminal.shutdown
last_error = _terminal.last_error
terminal_info = _terminal.terminal_info
symbol_select = _terminal.symbol_select
symbol_info = _terminal.symbol_info
symbol_info_tick = _terminal.symbol_info_tick


def copy_ticks_from(symbol: str, date_from: int, count: int, flags: int) -> Any:
    global _shown
    _shown = min(len(_all), _shown + 41)
    _terminal.symbols[_symbol].ticks = _all[:_shown]
    return _terminal.copy_ticks_from(symbol, date_from, count, flags)
