"""An agent that answers users word by word and, killed for a few seconds meanwhile, goes on where it was: with nats-py and the types of
`make proto-clients` on PYTHONPATH."""

import asyncio
import json
import os

import nats
from chat.v1.event_pb2 import EventBatch


async def main():
    url, feed, emitter = (os.environ[name] for name in ("NATS_URL", "NATS_FEED_PASSWORD", "NATS_EMITTER_PASSWORD"))
    reader = await nats.connect(url, user="feed", password=feed, inbox_prefix="_INBOX.feed")
    writer = await nats.connect(url, user="emitter", password=emitter, inbox_prefix="_INBOX.emitter.shop")

    async def step(asked, stream, **rest):
        outcome = await writer.subscribe(writer.new_inbox())
        head = {"Parlance-Message-Id": asked.id, "Parlance-Reply-To": outcome.subject, "Content-Type": "application/json"}
        body = {"sender_id": "shop", "sender_name": "Agent", "sender_kind": "AGENT", "stream": stream, **rest}
        await writer.jetstream().publish(f"chat.system.{asked.conversation_id}", json.dumps(body).encode(), headers=head)
        reply = json.loads((await outcome.next_msg(timeout=10)).data)
        await outcome.unsubscribe()
        return reply.get("expected_offset")  # None once the message has ended, interrupted perhaps or deleted

    async def answer(asked):
        text, at = f"You said: {asked.content}".encode(), await step(asked, "START")
        while at is not None and at < len(text):
            end = text.find(b" ", at) + 1 or len(text)
            at = await step(asked, "APPEND", offset=at, content=text[at:end].decode())
            await asyncio.sleep(0.1)
        if at is not None:
            await step(asked, "FINISH", offset=at)

    events = await reader.jetstream().pull_subscribe("chat.evt.>", durable="feed")
    while True:
        for message in await events.fetch(1, timeout=3600):
            for event in EventBatch.FromString(message.data).events:
                if event.message_created.message.sender.kind == 1:  # a person
                    await answer(event.message_created.message)
            await message.ack()


asyncio.run(main())
