"""What services usually call of nats-py, within one role.

Prints for each call `ok`, `refused` where the server refused permission, or what went wrong.
"""

import asyncio
import json
import os
import sys

import nats

ROLE, CONVERSATION = sys.argv[1:]


async def feed(js, attempt):
    async def pull(how):
        subscription = await how
        (message,) = await subscription.fetch(1, timeout=10)
        await message.ack_sync()
        await subscription.unsubscribe()

    await attempt("account_info", lambda: js.account_info())
    await attempt("stream_info", lambda: js.stream_info("EVENTS"))
    await attempt("find_stream_name_by_subject", lambda: js.find_stream_name_by_subject("chat.evt.>"))
    await attempt("consumer_info", lambda: js.consumer_info("EVENTS", "feed"))
    await attempt("pull_subscribe without a stream", lambda: pull(js.pull_subscribe("chat.evt.>", durable="feed")))
    await attempt("pull_subscribe_bind", lambda: pull(js.pull_subscribe_bind(durable="feed", stream="EVENTS")))
    await attempt("get_msg", lambda: js.get_msg("EVENTS", 1))
    await attempt("get_last_msg", lambda: js.get_last_msg("EVENTS", f"chat.evt.{CONVERSATION}"))
    await attempt("delete_consumer", lambda: js.delete_consumer("EVENTS", "feed"))
    await attempt("refused: get_msg direct", lambda: js.get_msg("EVENTS", 1, direct=True))
    await attempt("refused: ordered_consumer", lambda: js.subscribe("chat.evt.>", ordered_consumer=True))
    await attempt("refused: add_consumer", lambda: js.add_consumer("EVENTS", durable_name="mine"))


async def push(js, attempt):
    await attempt("account_info", lambda: js.account_info())
    await attempt("stream_info", lambda: js.stream_info("PUSH"))
    await attempt("pull_subscribe without a stream", lambda: js.pull_subscribe("chat.push.>", durable="push"))
    await attempt("refused: delete_consumer", lambda: js.delete_consumer("PUSH", "push"))


async def emitter(js, attempt):
    headers = {
        "Parlance-Message-Id": "roles-py",
        "Content-Type": "application/json",
    }
    body = b'{"sender_id": "roles", "content": "hello"}'
    await attempt("account_info", lambda: js.account_info())
    await attempt("publish", lambda: js.publish(f"chat.system.{CONVERSATION}", body, headers=headers))
    await attempt("refused: stream_info", lambda: js.stream_info("SYSTEM"))


async def main():
    results = {}
    violations = []

    async def attempt(name, call):
        violations.clear()
        try:
            await call()
            results[name] = "ok"
        except Exception as error:
            # The call itself sees a time-out: the server reports the violation to the connection.
            results[name] = "refused" if violations else repr(error)

    async def remember(error):
        if "permissions violation" in str(error).lower():
            violations.append(error)

    nc = await nats.connect(
        os.environ["NATS_URL"],
        user=os.environ["NATS_USER"],
        password=os.environ["NATS_PASSWORD"],
        inbox_prefix="_INBOX.emitter.shop" if ROLE == "emitter" else f"_INBOX.{ROLE}",
        error_cb=remember,
    )
    roles = {"feed": feed, "push": push, "emitter": emitter}
    await roles[ROLE](nc.jetstream(timeout=3), attempt)
    print(json.dumps(results))
    await nc.close()


asyncio.run(main())
