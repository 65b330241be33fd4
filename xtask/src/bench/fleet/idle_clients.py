"""Many idle clients of a message broker in one process, over TLS with a certificate of their own.

The other side of `many_devices`: what a broker keeps for a client that is connected, listens for its own news and says
nothing but that it is there. `cargo xtask bench main` steers it as it does the devices: `start N`, `stop`, `look`,
each answered with a line of JSON. Only the standard library is needed.
"""

import argparse
import asyncio
import json
import ssl
import sys

PINGREQ, PINGRESP = b"\xc0\x00", b"\xd0\x00"


def mqtt_string(text):
    return len(text).to_bytes(2, "big") + text.encode()


def mqtt_packet(kind, body):
    assert len(body) < 128
    return bytes([kind, len(body)]) + body


class Mqtt:
    """MQTT 3.1.1: a clean session with one subscription."""

    def __init__(self, options, context):
        self.options, self.context = options, context

    async def connect(self, number):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.options.port, ssl=self.context, server_hostname="localhost"
        )
        flags, keep_alive = b"\x04\x02", self.options.keep_alive.to_bytes(2, "big")
        writer.write(mqtt_packet(0x10, mqtt_string("MQTT") + flags + keep_alive + mqtt_string(f"device-{number}")))
        if await reader.readexactly(4) != b"\x20\x02\x00\x00":
            raise ConnectionError("the broker does not take the client")
        topic = mqtt_string(f"desired/{number}")
        writer.write(mqtt_packet(0x82, b"\x00\x01" + topic + b"\x01"))
        await reader.readexactly(5)
        return reader, writer

    async def ping(self, reader, writer):
        # As the protocol wants it: a broker gives a client up after one and a half times the keep-alive.
        writer.write(PINGREQ)
        await reader.readexactly(len(PINGRESP))


class Nats:
    """NATS: TLS after the server's INFO, and one subscription."""

    def __init__(self, options, context):
        self.options, self.context = options, context

    async def connect(self, number):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.options.port)
        await reader.readline()
        await writer.start_tls(self.context, server_hostname="localhost")
        said = {"verbose": False, "pedantic": False, "tls_required": True, "name": f"device-{number}"}
        writer.write(f"CONNECT {json.dumps(said)}\r\nSUB desired.{number} 1\r\n".encode())
        await self.ping(reader, writer)
        return reader, writer

    async def ping(self, reader, writer):
        writer.write(b"PING\r\n")
        while await reader.readline() != b"PONG\r\n":
            if reader.at_eof():
                raise ConnectionError("the server is gone")


class Fleet:
    def __init__(self, protocol, keep_alive):
        self.protocol, self.keep_alive = protocol, keep_alive
        self.clients, self.live = [], 0
        # So many may shake hands at once, as with the devices.
        self.handshakes = asyncio.Semaphore(16)

    async def be_client(self, number):
        async with self.handshakes:
            reader, writer = await self.protocol.connect(number)
        self.live += 1
        try:
            while True:
                await asyncio.sleep(self.keep_alive)
                await self.protocol.ping(reader, writer)
        finally:
            self.live -= 1
            writer.close()

    async def obey(self, words):
        if words[0] == "start":
            for number in range(len(self.clients), int(words[1])):
                self.clients.append(asyncio.create_task(self.be_client(number)))
        elif words[0] == "stop":
            for client in self.clients:
                client.cancel()
            await asyncio.gather(*self.clients, return_exceptions=True)
            self.clients = []
        failed = [client for client in self.clients if client.done()]
        if failed:
            raise failed[0].exception()
        return {"running": len(self.clients), "live": self.live}


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("protocol", choices=["mqtt", "nats"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--keep-alive", type=int, default=25)
    for name in ["--ca", "--certificate", "--key"]:
        parser.add_argument(name, required=True)
    options = parser.parse_args()
    context = ssl.create_default_context(cafile=options.ca)
    context.load_cert_chain(options.certificate, options.key)
    protocol = {"mqtt": Mqtt, "nats": Nats}[options.protocol](options, context)
    fleet = Fleet(protocol, options.keep_alive)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await fleet.obey(line.split())), flush=True)


asyncio.run(main())
