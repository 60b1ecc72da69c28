"""A service with nats-py and nothing of ours: publishes what standard input lists, all of it before it waits for any
outcome, and prints what came of each."""

import asyncio
import json
import os
import sys

import nats
from nats.errors import TimeoutError as NoOutcome

PATIENCE = 15


async def main():
    nc = await nats.connect(
        os.environ["NATS_URL"],
        user=os.environ.get("NATS_USER"),
        password=os.environ.get("NATS_PASSWORD"),
        inbox_prefix=b"_INBOX.emitter.shop",
    )
    js = nc.jetstream()
    published = []
    for one in json.load(sys.stdin):
        outcome = await nc.subscribe(nc.new_inbox())
        headers = {"Parlance-Reply-To": outcome.subject, **one["headers"]}
        ack = await js.publish(one["subject"], one["body"].encode(), headers=headers)
        published.append((outcome, ack))

    async def result(outcome, ack):
        try:
            reply = json.loads((await outcome.next_msg(timeout=PATIENCE)).data)
        except NoOutcome:
            reply = None
        return {"stream": ack.stream, "duplicate": bool(ack.duplicate), "reply": reply}

    print(json.dumps(await asyncio.gather(*(result(*one) for one in published))))
    await nc.close()


asyncio.run(main())
