"""TCP proxy for tracking.py that makes a local server as slow as a distant one.

    python benchmarks/delaying_proxy.py PORT TARGET_PORT SECONDS

Requests reach the target SECONDS later; its answers are not delayed.
"""

import asyncio
import sys

HOST = "127.0.0.1"


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    while data := await reader.read(1 << 16):
        loop.call_later(seconds, writer.write, data)
    loop.call_later(seconds, writer.close)


async def serve(port: int, target_port: int, seconds: float) -> None:
    async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_connection(HOST, target_port)
        await asyncio.gather(relay(reader, requests, seconds), relay(answers, writer, 0))

    server = await asyncio.start_server(passed_on, HOST, port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
