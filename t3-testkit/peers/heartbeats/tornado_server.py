"""A WebSocket server of tornado, the library of Jupyter: it sends Ping frames and ends a connection without Pongs.

Usage: python3 tornado_server.py PORT INTERVAL_MS. A message with a number blocks its event loop for so many milliseconds.
"""

import asyncio
import sys
import time

import tornado.web
import tornado.websocket


class Channel(tornado.websocket.WebSocketHandler):
    def check_origin(self, origin):
        return True

    def on_message(self, message):
        time.sleep(int(message) / 1000)


async def main():
    port, interval = int(sys.argv[1]), int(sys.argv[2]) / 1000
    # The timeout is that of the default: equal to the interval.
    application = tornado.web.Application([("/ws", Channel)], websocket_ping_interval=interval)
    application.listen(port, "127.0.0.1")
    await asyncio.Event().wait()


asyncio.run(main())
