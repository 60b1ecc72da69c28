"""A service with nats-py and the generated types: sends a message as protobuf, reads its outcome, and finds it in the feed.
The folder of the types, the account of the feed and the conversation are the arguments."""

import asyncio
import json
import os
import sys

import nats

FOLDER, FEED_PASSWORD, CONVERSATION = sys.argv[1:]
sys.path.insert(0, os.path.join(FOLDER, "python"))

from chat.v1.event_pb2 import EventBatch  # noqa: E402
from chat.v1.system_pb2 import SystemMessage, SystemReply  # noqa: E402


async def main():
    url = os.environ["NATS_URL"]
    account = {"user": os.environ["NATS_USER"], "password": os.environ["NATS_PASSWORD"]}
    nc = await nats.connect(url, **account, inbox_prefix="_INBOX.emitter.shop")
    outcome = await nc.subscribe(nc.new_inbox())
    headers = {"Parlance-Message-Id": "types-python", "Parlance-Reply-To": outcome.subject}
    message = SystemMessage(sender_id="shop", content="as protobuf from python")
    subject = f"chat.system.{CONVERSATION}"
    await nc.jetstream().publish(subject, message.SerializeToString(), headers=headers)
    reply = SystemReply.FromString((await outcome.next_msg(timeout=15)).data)
    await nc.close()

    nc = await nats.connect(url, user="feed", password=FEED_PASSWORD, inbox_prefix="_INBOX.feed")
    stored = await nc.jetstream().get_last_msg("EVENTS", f"chat.evt.{CONVERSATION}")
    event = EventBatch.FromString(stored.data).events[-1]
    await nc.close()
    body = event.WhichOneof("body")
    content = getattr(event, body).message.content
    found = {"outcome": reply.WhichOneof("outcome"), "seq": reply.accepted.seq, "event": body, "content": content}
    print(json.dumps(found))


asyncio.run(main())
