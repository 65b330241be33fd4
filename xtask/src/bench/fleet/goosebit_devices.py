"""Devices of a goosebit server, which check in and update as SWUpdate's do, by the DDI API over plain HTTP.

`found` makes a database with one release that is rolled out to all. `devices` is steered as all clients of
`cargo xtask bench main` are, a line for a command, each answered with a line of JSON:

- `register N`: `N` devices check in for the first time, and say what they are.
- `poll N`: each of them checks in.
- `update N`: each of them finds its update, fetches it, and says that it is well.

Connections are kept between requests, which real devices hardly do. It errs to the server's advantage, as does HTTP
without TLS.
"""

import argparse
import asyncio
import hashlib
import http.client
import json
import pathlib
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import local

THREADS = 8


async def found(options):
    from goosebit.db.config import TORTOISE_CONF
    from goosebit.db.models import Hardware, Rollout, Software
    from tortoise import Tortoise

    await Tortoise.init(config=TORTOISE_CONF)
    await Tortoise.generate_schemas()
    artifact = pathlib.Path(options.artifact).resolve()
    artifact.write_bytes(b"x" * options.bytes)
    software = await Software.create(
        uri=artifact.as_uri(),
        size=options.bytes,
        hash=hashlib.sha1(artifact.read_bytes()).hexdigest(),
        version="1.0.0",
    )
    await software.compatibility.add(await Hardware.create(model="default", revision="default"))
    await Rollout.create(name="bench", feed="default", software=software)
    await Tortoise.close_connections()


class Devices:
    def __init__(self, port):
        self.port, self.threads = port, local()

    def ask(self, method, path, message=None):
        if not hasattr(self.threads, "connection"):
            self.threads.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        body = None if message is None else json.dumps(message)
        self.threads.connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = self.threads.connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise ConnectionError(f"{method} {path}: {answer.status} {content!r}")
        return content

    @staticmethod
    def home(number):
        return f"/DEFAULT/controller/v1/device-{number}"

    def poll(self, number):
        return json.loads(self.ask("GET", self.home(number)))["_links"]

    def register(self, number):
        if "configData" not in self.poll(number):
            raise ConnectionError("the server knows the device already")
        data = {"hw_boardname": "default", "hw_revision": "default", "sw_version": "0.9.0"}
        self.ask("PUT", self.home(number) + "/configData", {"data": data})

    def update(self, number):
        deployment = self.path(self.poll(number)["deploymentBase"]["href"])
        chunks = json.loads(self.ask("GET", deployment))["deployment"]["chunks"]
        self.ask("GET", self.path(chunks[0]["artifacts"][0]["_links"]["download"]["href"]))
        for execution, finished in [("proceeding", "none"), ("closed", "success")]:
            status = {"execution": execution, "result": {"finished": finished}, "details": ["done"]}
            self.ask("POST", deployment + "/feedback", {"status": status})
        if "deploymentBase" in self.poll(number):
            raise ConnectionError("the server does not take the device for updated")

    @staticmethod
    def path(href):
        return "/" + href.split("/", 3)[3]

    def obey(self, pool, command, count):
        step = {"register": self.register, "poll": self.poll, "update": self.update}[command]
        return sum(1 for _ in pool.map(step, range(count)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    foundation = commands.add_parser("found")
    foundation.add_argument("--artifact", required=True)
    foundation.add_argument("--bytes", type=int, required=True)
    commands.add_parser("devices").add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    if options.command == "found":
        return asyncio.run(found(options))
    devices = Devices(options.port)
    with ThreadPoolExecutor(THREADS) as pool:
        for line in sys.stdin:
            command, count = line.split()
            print(json.dumps({"live": devices.obey(pool, command, int(count))}), flush=True)


if __name__ == "__main__":
    main()
