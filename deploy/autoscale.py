#!/usr/bin/env python3
"""Simulates a day of traffic on replicas that KEDA scales as deploy/kubernetes/base/scaling.yaml says. Prints what users would
have waited for, and draws it:  deploy/autoscale.py --svg deploy/autoscale.svg

What it assumes: a replica runs up to --batch requests at once and queues the rest; it reads prompts first, in order of
arrival, and the time that is left it writes for all of them alike. The rate between one and a full batch is a straight line.
A replica that is told to go finishes what it has. Nothing fails. The speeds are those of the 4B in bf16 on two CPU cores (README.md).
"""

import argparse
import collections
import dataclasses
import math
import random

STEP_S = 0.5
DAY_S = 86_400


@dataclasses.dataclass
class Request:
    arrived: float
    prompt_left: float
    answer_left: float
    answer: float
    first_token: float = 0.0


@dataclasses.dataclass
class Replica:
    ready_at: float
    running: list[Request] = dataclasses.field(default_factory=list)
    waiting: collections.deque[Request] = dataclasses.field(default_factory=collections.deque)

    @property
    def load(self) -> int:
        return len(self.running) + len(self.waiting)

    def step(self, now: float, options: argparse.Namespace) -> list[Request]:
        """Half a second of work. The requests that it finished."""
        while self.waiting and len(self.running) < options.batch:
            self.running.append(self.waiting.popleft())
        time = STEP_S
        for request in self.running:
            read = min(request.prompt_left, time * options.prompt_rate)
            request.prompt_left -= read
            time -= read / options.prompt_rate
        writing = [request for request in self.running if request.prompt_left <= 0]
        if not writing:
            return []
        share = (len(writing) - 1) / max(options.batch - 1, 1)
        rate = options.rate_one + (options.rate_batch - options.rate_one) * share
        tokens = rate / len(writing) * time
        for request in writing:
            request.answer_left -= tokens
            if not request.first_token and request.answer - request.answer_left >= 1:
                request.first_token = now + STEP_S
        done = [request for request in writing if request.answer_left <= 0]
        self.running = [request for request in self.running if request.answer_left > 0]
        return done


class Scaler:
    """The HPA that KEDA makes: AverageValue of a query over requests that run or wait, with the behaviour of scaling.yaml."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.recommended: collections.deque[tuple[float, int]] = collections.deque()
        self.changes: list[tuple[float, int]] = []

    def wanted(self, now: float, load: float, current: int) -> int:
        options = self.options
        ratio = load / (options.threshold * current)
        raw = current if abs(ratio - 1) <= 0.1 else math.ceil(load / options.threshold)
        raw = min(max(raw, options.least), options.most)
        self.recommended.append((now, raw))
        while self.recommended[0][0] < now - options.down_window_s:
            self.recommended.popleft()
        wanted = raw if raw > current else min(current, max(value for _, value in self.recommended))
        added = sum(change for at, change in self.changes if change > 0 and at > now - 30)
        removed = -sum(change for at, change in self.changes if change < 0 and at > now - 60)
        wanted = min(max(wanted, current - max(1 - removed, 0)), current + max(4 - added, 0))
        if wanted != current:
            self.changes.append((now, wanted - current))
        return wanted


def traffic(now: float, peak: float) -> float:
    """Requests a second: a quiet night, two humps, and a crowd at three in the afternoon."""
    hour = now / 3600
    hump = lambda centre, width: math.exp(-(((hour - centre) / width) ** 2))  # noqa: E731
    crowd = 0.45 if 15 <= hour < 15.5 else 0.0
    return peak * min(1.0, 0.04 + 0.62 * hump(11, 2.6) + 0.5 * hump(19.5, 2.2) + crowd)


@dataclasses.dataclass
class Day:
    finished: list[tuple[Request, float]] = dataclasses.field(default_factory=list)
    refused: int = 0
    replica_hours: float = 0.0
    # (time, requests a second, replicas wanted, replicas ready, requests that run or wait), each minute.
    minutes: list[tuple[float, float, int, int, float]] = dataclasses.field(default_factory=list)


def simulate(options: argparse.Namespace) -> Day:
    # Two, so that the same requests arrive whatever is done with them.
    chance, picks = random.Random(options.seed), random.Random(options.seed)
    day, scaler = Day(), Scaler(options)
    replicas = [Replica(ready_at=0.0) for _ in range(options.fixed or options.least)]
    leaving: list[Replica] = []
    loads: collections.deque[int] = collections.deque(maxlen=6)  # scraped each 5 s, their mean over 30 s
    next_arrival = 0.0
    for tick in range(int(DAY_S / STEP_S)):
        now = tick * STEP_S
        ready = [replica for replica in replicas if replica.ready_at <= now]
        while next_arrival <= now:
            next_arrival += chance.expovariate(options.peak)
            if chance.random() * options.peak > traffic(next_arrival, options.peak):
                continue
            answer = max(1.0, chance.expovariate(1 / options.answer))
            request = Request(now, max(1.0, chance.expovariate(1 / options.prompt)), answer, answer)
            at = min(ready, key=lambda replica: replica.load) if options.balance == "least" else picks.choice(ready)
            if len(at.waiting) >= options.queue:
                day.refused += 1
            else:
                at.waiting.append(request)
        for replica in ready + leaving:
            day.finished += [(request, now + STEP_S) for request in replica.step(now, options)]
        leaving = [replica for replica in leaving if replica.load]
        if now % 5 == 0:
            loads.append(sum(replica.load for replica in ready))
        if now % options.sync_s == 0 and not options.fixed:
            wanted = scaler.wanted(now, sum(loads) / len(loads), len(replicas))
            replicas += [Replica(now + options.start_s) for _ in range(wanted - len(replicas))]
            # The newest go first, as a ReplicaSet prefers.
            leaving += replicas[wanted:]
            del replicas[wanted:]
        day.replica_hours += (len(replicas) + len(leaving)) * STEP_S / 3600
        if now % 60 == 0:
            day.minutes.append((now, traffic(now, options.peak), len(replicas), len(ready), sum(replica.load for replica in ready)))
    return day


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] if values else 0.0


def windows(day: Day, width_s: float = 900) -> list[tuple[float, float, float]]:
    """(time, median, 95th percentile) of the seconds to the first token, by arrival, each quarter of an hour."""
    by_window = collections.defaultdict(list)
    for request, _ in day.finished:
        by_window[request.arrived // width_s].append(request.first_token - request.arrived)
    return [((at + 0.5) * width_s, percentile(values, 0.5), percentile(values, 0.95)) for at, values in sorted(by_window.items())]


def panel(top: int, title: str, lines: list[tuple[str, str, list[tuple[float, float]]]]) -> str:
    """A panel of the drawing: 24 hours to the right, and lines of (name, colour, points)."""
    left, width, height = 60, 820, 150
    most = max(value for _, _, points in lines for _, value in points) or 1.0
    unit = 10 ** math.floor(math.log10(most))
    most = next(unit * step for step in (1, 2, 4, 6, 8, 10) if unit * step >= most)
    x = lambda at: left + width * at / DAY_S  # noqa: E731
    y = lambda value: top + height - height * value / most  # noqa: E731
    out = [f'<text x="{left}" y="{top - 8}" font-weight="bold">{title}</text>']
    for part in range(5):
        value = most * part / 4
        out.append(f'<path d="M{left} {y(value):.1f}h{width}" stroke="#ddd"/><text x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for hour in range(0, 25, 3):
        out.append(f'<text x="{x(hour * 3600):.1f}" y="{top + height + 15}" text-anchor="middle">{hour}:00</text>')
    for index, (name, colour, points) in enumerate(lines):
        path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        out.append(f'<text x="{left + width - 8}" y="{top + 14 + 15 * index}" text-anchor="end" fill="{colour}">{name}</text>')
    return "\n".join(out)


def drawing(day: Day) -> str:
    column = lambda index: [(minute[0], minute[index]) for minute in day.minutes]  # noqa: E731
    latency = windows(day)
    panels = [
        panel(40, "Requests a second", [("arriving", "#1565c0", column(1))]),
        panel(250, "Replicas", [("wanted", "#f9a825", column(2)), ("ready", "#2e7d32", column(3))]),
        panel(460, "Requests that run or wait", [("on all replicas", "#6a1b9a", column(4))]),
        panel(
            670,
            "Seconds to the first token, by arrival",
            [("95th percentile", "#c62828", [(at, high) for at, _, high in latency]), ("median", "#2e7d32", [(at, mid) for at, mid, _ in latency])],
        ),
    ]
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 850" font-family="sans-serif" font-size="12">'
    return "\n".join([head, '<rect width="900" height="850" fill="white"/>', *panels, "</svg>\n"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    number = lambda name, default, help: parser.add_argument(name, type=type(default), default=default, help=f"{help} ({default})")  # noqa: E731
    number("--rate-one", 3.2, "tokens a second of one answer")
    number("--rate-batch", 12.5, "tokens a second of a full batch, together")
    number("--prompt-rate", 22.3, "tokens a second of a prompt")
    number("--batch", 8, "requests at once in a replica")
    number("--queue", 128, "requests that may wait in a replica")
    number("--prompt", 40.0, "mean tokens of a prompt")
    number("--answer", 60.0, "mean tokens of an answer")
    number("--peak", 0.8, "most requests a second")
    number("--start-s", 13.0, "seconds until a new replica is ready: 3 of the server, 10 of scheduling it")
    number("--threshold", 6.0, "requests that a replica should hold")
    number("--least", 1, "replicas")
    number("--most", 8, "replicas")
    number("--sync-s", 15, "seconds between decisions")
    number("--down-window-s", 300, "stabilisation window of scaling down")
    number("--fixed", 0, "so many replicas all day; 0: scaled")
    number("--seed", 1, "of chance")
    parser.add_argument("--balance", choices=["random", "least"], default="random", help="a Service picks any replica; an endpoint picker the least loaded (random)")
    parser.add_argument("--svg", help="where to draw the day")
    options = parser.parse_args()

    day = simulate(options)
    first = [request.first_token - request.arrived for request, _ in day.finished]
    whole = [end - request.arrived for request, end in day.finished]
    most = max(minute[2] for minute in day.minutes)
    print(f"answered {len(day.finished)}, refused {day.refused}, at most {most} replicas, {day.replica_hours:.1f} replica hours")
    for name, values in (("to the first token", first), ("whole answer", whole)):
        print(f"{name}: median {percentile(values, 0.5):.1f} s, 95 % {percentile(values, 0.95):.1f} s, 99 % {percentile(values, 0.99):.1f} s")
    if options.svg:
        with open(options.svg, "w") as out:
            out.write(drawing(day))


if __name__ == "__main__":
    main()
