"""All datasets, by name. Pure, lane side. A new one is imported here and nowhere else."""

from __future__ import annotations

from app.datasets import (
    basis_history,
    corporate_actions,
    execution_metrics,
    financial_info,
    foreign_snapshots,
    market_data,
    news,
    option_quotes,
    price_history,
    strategy_metrics,
    system_metrics,
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
        market_data,
        strategy_metrics,
        execution_metrics,
        system_metrics,
    )
}
"""In the order in which they are listed."""

for _dataset in DATASETS.values():
    _dataset.check()
