"""picows: a WebSocket library in Cython, its callbacks, and `transport.send` to one client after the other."""

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from bench.peers import arguments

members: set[WSTransport] = set()


class Member(WSListener):
    def on_ws_connected(self, transport: WSTransport) -> None:
        members.add(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        elif frame.msg_type == WSMsgType.TEXT:
            message = frame.get_payload_as_bytes()
            # A copy: a send that fails may disconnect, and with it take a member out.
            for member in tuple(members):
                member.send(WSMsgType.TEXT, message)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        members.discard(transport)


def listener(request: WSUpgradeRequest) -> Member:
    return Member()


async def main() -> None:
    server = await ws_create_server(listener, "127.0.0.1", arguments.port(), backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
