"""A worker's side of the query cache, as a process: patched as a worker is, told what to do by lines of JSON.

`python -m tests.process.cache_client URL [S]`, its log on stderr. S: seconds that it waits for Redis, if not as long as
the product does.
"""

from gevent import monkey

monkey.patch_all()

import base64  # noqa: E402
import json  # noqa: E402
import logging  # noqa: E402
import sys  # noqa: E402
from collections import Counter  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
from gevent.fileobject import FileObjectPosix  # noqa: E402

from app.query_cache import make_cache  # noqa: E402
from app.settings import load  # noqa: E402
from tests.process.probes import wait_for_redis  # noqa: E402

PATIENCE_S = 10.0
"""More than any of it may take, by far: when it is over, it hangs."""


def main(url: str, waits_s: float | None = None) -> None:
    if waits_s is not None:
        wait_for_redis(waits_s)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    results: Counter[str] = Counter()
    cache = make_cache(load({"TICKHUB_REDIS_URL": url}, None, None), lambda result: results.update([result]))
    cache.start()

    def get(key: str) -> str | None:
        value = cache.get(key)
        return None if value is None else base64.b64encode(value).decode()

    def put(key: str, value: str, ttl_s: float) -> None:
        cache.put(key, base64.b64decode(value), ttl_s)

    def storm(requests: int) -> int:
        """Many requests at once; return how many got nothing."""
        asked = [gevent.spawn(cache.get, f"storm {number}") for number in range(requests)]
        gevent.joinall(asked, raise_error=True)
        return sum(greenlet.value is None for greenlet in asked)

    calls: dict[str, Any] = {
        "get": get,
        "put": put,
        "storm": storm,
        "results": lambda: dict(results),
        "stop": cache.stop,
        "start": cache.start,
    }
    for line in FileObjectPosix(sys.stdin.buffer.raw):
        name, *arguments = json.loads(line)
        with gevent.Timeout(PATIENCE_S):
            answer = calls[name](*arguments)
        print(json.dumps(answer), flush=True)
    cache.stop()


if __name__ == "__main__":
    main(sys.argv[1], *map(float, sys.argv[2:]))
