"""All datasets, by name. Pure, lane side. A new one is imported here and nowhere else."""

from __future__ import annotations

from app.datasets import (
    alerts,
    backtests,
    basis_history,
    corporate_actions,
    execution_metrics,
    fills,
    financial_info,
    foreign_snapshots,
    instruments,
    market_data,
    news,
    option_quotes,
    price_history,
    strategies,
    strategy_metrics,
    system_metrics,
    trades,
)
from app.datasets.declare import Dataset

DATASETS: dict[str, Dataset] = {
    module.DATASET.name: module.DATASET
    for module in (
        foreign_snapshots,
        financial_info,
        news,
        corporate_actions,
        basis_history,
        option_quotes,
        price_history,
        instruments,
        alerts,
        fills,
        strategies,
        backtests,
        market_data,
        strategy_metrics,
        execution_metrics,
        system_metrics,
        trades,
    )
}
"""In the order in which they are listed."""

for _dataset in DATASETS.values():
    _dataset.check()
