"""The vendor's daily bars over REST, whatever goes wrong on the way. The vendor is a stand-in on 127.0.0.1."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import date, timedelta

import pytest

from app.cli import fastconnect
from app.cli.fastconnect import Access, Clock, FastConnect, VendorAway, VendorRefused
from tests.process.fastconnect_stand_in import CONSUMER_ID, CONSUMER_SECRET, StandIn, stand_in

FIRST = date(2024, 3, 4)
LAST = FIRST + timedelta(29)


class Time:
    """A clock that is only moved by waiting."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []
        self.skew_s = 0.0

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def clock(self) -> Clock:
        return Clock(self.sleep, lambda: self.now, lambda: time.time() + self.now - 1000.0 + self.skew_s)


@pytest.fixture
def vendor() -> Iterator[StandIn]:
    with stand_in() as running:
        yield running


@pytest.fixture
def passing() -> Time:
    return Time()


def client(vendor: StandIn, passing: Time, secret: str = CONSUMER_SECRET, per_s: float = 1.0) -> FastConnect:
    return FastConnect(Access(vendor.url, CONSUMER_ID, secret, per_s), passing.clock())


def days(rows: list[dict[str, object]]) -> list[object]:
    return [row["tradingdate"] for row in rows]


def test_a_question_is_asked_as_documented_and_its_rows_come_back(vendor: StandIn, passing: Time) -> None:
    traded = vendor.add_weekdays("VCB", FIRST, 22)
    rows = client(vendor, passing).daily_bars("VCB", FIRST, LAST)
    assert days(rows) == [f"{day:%d/%m/%Y}" for day in traded]
    assert rows[0] == {
        "symbol": "VCB",
        "market": "HOSE",
        "tradingdate": "04/03/2024",
        "time": "",
        "open": "99",
        "high": "101",
        "low": "99",
        "close": "100",
        "volume": "1000",
        "value": "100000",
    }
    assert vendor.asked == [
        {
            "symbol": "VCB",
            "fromDate": "04/03/2024",
            "toDate": "02/04/2024",
            "pageIndex": "1",
            "pageSize": "100",
            "ascending": "true",
        }
    ]
    assert vendor.paths[0] == "/api/v2/Market/AccessToken"


def test_the_answer_of_the_specification_is_understood_as_well(passing: Time) -> None:
    with stand_in("spec") as vendor:
        traded = vendor.add_weekdays("SSI", FIRST, 5)
        assert len(client(vendor, passing).daily_bars("SSI", FIRST, LAST)) == len(traded)
        assert client(vendor, passing).daily_bars("VCB", FIRST, LAST) == []


def test_days_without_trading_are_an_empty_answer_and_no_error(vendor: StandIn, passing: Time) -> None:
    assert client(vendor, passing).daily_bars("VCB", FIRST, LAST) == []
    assert passing.waits == [pytest.approx(1.0)]


def test_all_pages_are_read_though_the_vendor_makes_them_smaller(vendor: StandIn, passing: Time) -> None:
    vendor.largest_page = 7
    vendor.add_weekdays("VCB", FIRST, 20)
    rows = client(vendor, passing).daily_bars("VCB", FIRST, LAST)
    assert [asked["pageIndex"] for asked in vendor.asked] == ["1", "2", "3"]
    assert len(set(map(str, days(rows)))) == len(rows) == 20


def test_half_a_page_is_asked_again_and_never_taken_for_all(vendor: StandIn, passing: Time) -> None:
    vendor.add_weekdays("VCB", FIRST, 20)
    vendor.faults = ["half_page", None]
    assert len(client(vendor, passing).daily_bars("VCB", FIRST, LAST)) == 20


def test_a_vendor_that_only_has_half_pages_is_named_as_such(vendor: StandIn, passing: Time) -> None:
    vendor.add_weekdays("VCB", FIRST, 20)
    vendor.faults = ["half_page"] * 100
    with pytest.raises(VendorAway, match=r"20 rows promised for VCB, 1. given"):
        client(vendor, passing).daily_bars("VCB", FIRST, LAST)


def test_one_token_serves_many_questions(vendor: StandIn, passing: Time) -> None:
    asking = client(vendor, passing)
    for _ in range(5):
        asking.daily_bars("VCB", FIRST, LAST)
    assert len(vendor.tokens) == 1


def test_a_token_is_renewed_before_it_ends(vendor: StandIn, passing: Time) -> None:
    vendor.token_life_s = 3600
    asking = client(vendor, passing)
    asking.daily_bars("VCB", FIRST, LAST)
    passing.now += 3600 - fastconnect.RENEW_BEFORE_S - 60
    asking.daily_bars("VCB", FIRST, LAST)
    assert len(vendor.tokens) == 1
    passing.now += 120
    asking.daily_bars("VCB", FIRST, LAST)
    assert len(vendor.tokens) == 2


def test_a_token_that_ended_early_is_renewed_at_once(vendor: StandIn, passing: Time) -> None:
    vendor.add_weekdays("VCB", FIRST, 3)
    vendor.faults = [None, "expired"]
    asking = client(vendor, passing)
    asking.daily_bars("VCB", FIRST, LAST)
    assert len(asking.daily_bars("VCB", FIRST, LAST)) == 3
    assert sum(path.endswith("AccessToken") for path in vendor.paths) == 2


def test_a_vendor_that_refuses_its_new_tokens_is_not_asked_for_ever(vendor: StandIn, passing: Time) -> None:
    vendor.faults = ["expired"] * 100
    with pytest.raises(VendorRefused, match="does not accept its own new token"):
        client(vendor, passing).daily_bars("VCB", FIRST, LAST)
    assert len(vendor.paths) == 4


def test_a_clock_that_is_wrong_by_a_day_does_not_renew_for_every_question(vendor: StandIn, passing: Time) -> None:
    passing.skew_s = 86_400
    asking = client(vendor, passing)
    for _ in range(5):
        asking.daily_bars("VCB", FIRST, LAST)
    assert len(vendor.tokens) == 1


def test_questions_keep_the_vendors_pace(vendor: StandIn, passing: Time) -> None:
    asking = client(vendor, passing, per_s=2.0)
    for _ in range(4):
        asking.daily_bars("VCB", FIRST, LAST)
    assert passing.waits == [pytest.approx(0.5)] * 4  # five requests with the token's


@pytest.mark.parametrize("fault", ["quota_body", "500", "cut", "reset", "html"])
def test_what_may_pass_is_tried_again_with_growing_waits(vendor: StandIn, passing: Time, fault: str) -> None:
    vendor.add_weekdays("VCB", FIRST, 3)
    vendor.faults = [fault, fault, fault]  # type: ignore[list-item]
    assert len(client(vendor, passing, per_s=1e9).daily_bars("VCB", FIRST, LAST)) == 3
    backoffs = [wait for wait in passing.waits if wait > 1e-3]
    assert len(backoffs) == 3
    assert all(low <= wait <= high for wait, low, high in zip(backoffs, (0.75, 1.5, 3), (1.25, 2.5, 5), strict=True))


def test_who_says_when_to_come_back_is_not_asked_before(vendor: StandIn, passing: Time) -> None:
    vendor.add_weekdays("VCB", FIRST, 3)
    vendor.faults = ["quota"]
    assert len(client(vendor, passing).daily_bars("VCB", FIRST, LAST)) == 3
    assert sum(passing.waits) >= 7


def test_a_vendor_that_stays_away_is_given_up_with_the_reason(vendor: StandIn, passing: Time) -> None:
    vendor.faults = ["500"] * 100
    with pytest.raises(VendorAway, match="cannot be asked: HTTP 500"):
        client(vendor, passing).daily_bars("VCB", FIRST, LAST)
    assert len(vendor.faults) == 100 - fastconnect.TRIES


def test_nobody_listening_is_the_vendor_away(passing: Time) -> None:
    access = Access("http://127.0.0.1:9", CONSUMER_ID, CONSUMER_SECRET, 1.0)
    with pytest.raises(VendorAway, match=r"gives no token: .*refused"):
        FastConnect(access, passing.clock()).daily_bars("VCB", FIRST, LAST)


def test_trouble_with_the_token_is_tried_again_too(vendor: StandIn, passing: Time) -> None:
    vendor.add_weekdays("VCB", FIRST, 3)
    vendor.token_faults = ["500", "reset", "quota"]
    assert len(client(vendor, passing).daily_bars("VCB", FIRST, LAST)) == 3


def test_a_refused_question_is_asked_once(vendor: StandIn, passing: Time) -> None:
    vendor.faults = ["403"]
    with pytest.raises(VendorRefused, match="HTTP 403"):
        client(vendor, passing).daily_bars("VCB", FIRST, LAST)
    with pytest.raises(VendorRefused, match="max range 30 days"):
        client(vendor, passing).daily_bars("VCB", date.today(), date.today() + timedelta(10))
    assert len(vendor.asked) == 1


def test_wrong_credentials_are_refused_at_once_and_stand_in_no_message(vendor: StandIn, passing: Time) -> None:
    with pytest.raises(VendorRefused) as caught:
        client(vendor, passing, secret="another-secret").daily_bars("VCB", FIRST, LAST)
    assert "Invalid consumer ***" in str(caught.value)
    assert len(vendor.paths) == 1


def test_neither_secret_nor_token_stands_in_a_message_an_address_or_a_repr(vendor: StandIn, passing: Time) -> None:
    told: list[str] = []
    access = Access(vendor.url, CONSUMER_ID, CONSUMER_SECRET, 1.0)
    asking = FastConnect(access, passing.clock(), told.append)
    vendor.faults = ["500", "403"]
    with pytest.raises(VendorRefused) as caught:
        asking.daily_bars("VCB", FIRST, LAST)
    said = " ".join([str(caught.value), *told, repr(access), *vendor.paths])
    assert "no right for Bearer ***" in said
    for secret in (CONSUMER_ID, CONSUMER_SECRET, vendor.tokens[0]):
        assert secret not in said


def test_a_redirect_does_not_carry_the_token_away(vendor: StandIn, passing: Time) -> None:
    vendor.faults = ["redirect"]
    with pytest.raises(VendorRefused, match="HTTP 302"):
        client(vendor, passing).daily_bars("VCB", FIRST, LAST)
    assert vendor.elsewhere == []


def test_without_credentials_nobody_is_asked(vendor: StandIn, passing: Time) -> None:
    with pytest.raises(VendorRefused, match="TICKHUB_FASTCONNECT_CONSUMER_ID"):
        client(vendor, passing, secret="").daily_bars("VCB", FIRST, LAST)
    assert vendor.paths == []
