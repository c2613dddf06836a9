"""SQLAlchemy's side: says "ready", then for each line "borrow SECONDS" or "insert SECONDS" prints operations a second.

arguments: conninfo, tasks. One thread a task, as a synchronous program would; psycopg 3.
"""

import sys
import threading
import time

import psycopg
from sqlalchemy import create_engine, text

conninfo, tasks = sys.argv[1], int(sys.argv[2])
engine = create_engine(
    "postgresql+psycopg://", creator=lambda: psycopg.connect(conninfo), pool_size=4, max_overflow=0, pool_pre_ping=True
)


def borrow():
    with engine.connect():
        pass


def insert():
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO t VALUES (:n)"), {"n": 1})


def rate(work, seconds):
    counts = [0] * tasks
    deadline = time.monotonic() + seconds

    def loop(index):
        while time.monotonic() < deadline:
            work()
            counts[index] += 1

    threads = [threading.Thread(target=loop, args=(index,)) for index in range(tasks)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - begun)


print("ready", flush=True)
for line in sys.stdin:
    what, seconds = line.split()
    print(rate({"borrow": borrow, "insert": insert}[what], float(seconds)), flush=True)
