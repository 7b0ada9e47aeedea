"""Yours to edit: what your application says to connections, subscriptions, publications and calls.

Uncomment what you need; a hook that is not defined costs nothing. Each is an `async def` of this module:

    from typing import Annotated, Any

    from fastapi import Depends
    from fastapi.requests import HTTPConnection

    from app.codes import ACCESS_DENIED, BAD_REQUEST, METHOD_NOT_FOUND, CommandError, Disconnect
    from app.gateway.client import Client
    from app.gateway.publishing import Publishing
    from app.offload import offload

    # Once the token was verified, before anything else of the client is heard.
    async def on_connect(client: Client) -> bool | None:
        if client.user in BANNED:
            raise Disconnect(ACCESS_DENIED, "banned")
        await client.send({"welcome": client.user})

    # Before a client joins a room. False refuses; where the namespace says `subscribe = "hook"`, only True lets in.
    async def on_subscribe(client: Client, room: str) -> bool | None:
        return room != "chat:staff" or client.user in STAFF

    # Before a client's publication goes out. May refuse as above, and change `data` and `tags`.
    async def on_publish(client: Client, publication: Publishing) -> bool | None:
        if not isinstance(publication.data, dict):
            raise CommandError(BAD_REQUEST, "an object, please")
        publication.data["text"] = publication.data["text"].strip()
        publication.tags["author"] = client.user

    def user_agent(connection: HTTPConnection) -> str:
        return connection.headers.get("user-agent", "")

    # Answers the client's `rpc`, with any JSON value. Dependencies are FastAPI's, resolved once, at connect.
    async def on_rpc(client: Client, method: str, data: Any, agent: Annotated[str, Depends(user_agent)]) -> Any:
        match method:
            case "agent":
                return agent
            case "thumbnail":
                return await offload(make_thumbnail, data["picture"])  # CPU work, in another process
        raise CommandError(METHOD_NOT_FOUND)

    # Exactly once for each client that `on_connect` let in, after all else of it. `code` is the close code.
    async def on_disconnect(client: Client, code: int) -> None:
        client.log.info("bye", code=code)

A hook that raises anything but CommandError and Disconnect, or takes longer than `hook_timeout`, hurts its own client
only: error 100 (in `on_connect`: close 3004). `docs/hooks.md` says the rest, and how to test hooks.
"""
