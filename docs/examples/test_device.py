"""Enrols device.py with a real server, by the commands that an operator has.

cargo build
FLEETD=$PWD/target/debug/fleetd python -m unittest test_device      # in docs/examples, with the packages
"""

import asyncio
import base64
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import AsyncMock

from cryptography import x509

import device
from connection import Closed, wire
from layout import CA, Delegation, Key, id_text, read_root_record, read_token, tagged_hash, with_length

DEVICE = Path(__file__).resolve().with_name("device.py")
PATIENCE_S = 60


class Fleet:
    """A server with a folder of its own, on free ports of this machine."""

    def __init__(self, folder):
        self.folder, self.children = folder, []
        # What the caller has set for fleets of his own means nothing here.
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("FLEETD")}
        self.environment["FLEETD_CONFIG_DIR"] = str(folder / "config")

    def serve(self):
        nowhere = "127.0.0.1:0"
        serve = ["--json", "serve", "--data", "server", "--api-address", nowhere, "--sync-address", nowhere]
        self.start("server", [os.environ["FLEETD"], *serve])
        said = self.until("the server to listen", lambda: self.said("server"), lambda said: said.endswith("\n"))
        self.root_key = json.loads(said)["rootKeyPath"]

    def said(self, name):
        return (self.folder / f"{name}.out").read_text()

    def start(self, name, command):
        with open(self.folder / f"{name}.out", "wb") as out, open(self.folder / f"{name}.err", "wb") as err:
            child = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=out, stderr=err)
        self.children.append(child)
        return child

    def run(self, *arguments):
        command = [os.environ["FLEETD"], "--json", *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise AssertionError(f"fleetd {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)

    def device(self, name, *arguments):
        """Starts the example; it writes what it does to `name.out`."""
        return self.start(name, [sys.executable, "-B", DEVICE, "--folder", "device", *arguments])

    def release(self, version, size):
        """Signs a release of `coffee` and starts to bring it to all devices."""
        (self.folder / "coffee").write_bytes(b"#!/bin/sh\n" + os.urandom(size))
        self.run("release", "push", f"coffee@{version}", "--artifact", "coffee", "--key", "release.key")
        plan = self.run("rollout", "plan", f"coffee@{version}", "--all")["plan"]["id"]
        self.run("rollout", "start", plan)

    def why(self):
        """The first reason of `fleetd device why` for what the only device does with `coffee`."""
        name = self.run("device", "list")["devices"][0]["name"]
        return self.run("device", "why", f"{name}/coffee")["reasons"][0]["kind"]

    def shown(self):
        """What `fleetd device show` says of the only device; nothing before there is one."""
        devices = self.run("device", "list")["devices"]
        return self.run("device", "show", devices[0]["name"]) if devices else {}

    def until_device(self, awaited, is_so):
        return self.until(f"the device {awaited}", self.shown, is_so)

    def until(self, awaited, look, is_so):
        deadline = time.monotonic() + PATIENCE_S
        while not is_so(seen := look()):
            if time.monotonic() > deadline:
                logs = "".join(f"== {path.name}\n{path.read_text()}" for path in sorted(self.folder.glob("*.???")))
                raise AssertionError(f"waited in vain for {awaited}; last seen: {seen}\n{logs}")
            time.sleep(0.05)
        return seen

    def end(self):
        for child in self.children:
            child.kill()
            child.wait()


def is_online(device):
    return device.get("presence") == "PRESENCE_ONLINE"


def runs(version):
    """Says whether a device has just what it should, which is this version, and is healthy."""

    def is_so(device):
        if not is_online(device) or len(device["workloads"]) != 1:
            return False
        (workload,) = device["workloads"]
        pairs = ["Release", "RolloutId", "Attempt"]
        is_in_sync = all(workload[f"desired{name}"] == workload[f"actual{name}"] for name in pairs)
        is_healthy = (workload["phase"], workload["runState"]) == ("WORKLOAD_PHASE_HEALTHY", "RUN_STATE_RUNNING")
        return is_in_sync and is_healthy and workload["actualRelease"] == version

    return is_so


class Servers(unittest.TestCase):
    """Whom a device believes to be a server of its fleet."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="fleetd-example-")
        self.addCleanup(folder.cleanup)
        self.ca, self.key = Key(os.urandom(32)), Key(os.urandom(32))
        golden = Path(__file__).resolve().parents[2] / "sync/core/tests/golden"
        lines = dict(line.split() for name in ("token", "root_record") for line in read(golden / f"{name}.txt"))
        record = read_root_record(bytes.fromhex(lines["record_1"]))
        self.device = device.Device(folder.name, lines["text"])
        self.device.chain.records.append(
            replace(record, delegations={self.ca.id: Delegation(self.ca.public, CA, 1, b"")})
        )
        self.fleet = lines["fleet"]

    def leaf(self, issuer, fleet=None, role="server", named=None):
        name = f"spiffe://{fleet or self.fleet}/{role}/{id_text('key_', (named or self.key).id)}"
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name), x509.DNSName("localhost")])
        day = datetime.datetime(1970, 1, 2)
        builder = x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(x509.Name([])).serial_number(1)
        builder = builder.not_valid_before(day).not_valid_after(day).public_key(self.key.secret.public_key())
        return builder.add_extension(names, critical=True).sign(issuer.secret, None)

    def greet(self, leaf):
        """Lets a server that shows this certificate say Hello."""
        hello = wire.Hello(version_max=1, grade=wire.GRADE_FULL, trust_version=self.device.chain.version)
        said = AsyncMock(return_value=wire.Frame(hello=hello))
        asyncio.run(self.device.greet(SimpleNamespace(receive=said, server_leaf=leaf)))

    def test_one_whom_the_ca_calls_so_is_believed_whatever_the_date(self):
        self.greet(self.leaf(self.ca))

    def test_all_others_are_not(self):
        other = Key(os.urandom(32))
        foreign = id_text("flt_", bytes(16))
        leaves = {
            "another issuer": self.leaf(other),
            "its own issuer": self.leaf(self.key),
            "another fleet": self.leaf(self.ca, fleet=foreign),
            "a device": self.leaf(self.ca, role="device"),
            "the name of another key": self.leaf(self.ca, named=other),
        }
        for what, leaf in leaves.items():
            with self.subTest(what), self.assertRaisesRegex(Closed, "impostor"):
                self.greet(leaf)

    def test_a_ca_that_was_revoked_vouches_for_nobody(self):
        first = self.device.chain.newest
        self.device.chain.records.append(replace(first, version=2, revocations={self.ca.id: 2}))
        with self.assertRaisesRegex(Closed, "impostor"):
            self.greet(self.leaf(self.ca))


def read(path):
    return path.read_text().splitlines()


class Devices(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="fleetd-example-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.fleet = Fleet(self.folder)
        self.addCleanup(self.fleet.end)
        self.fleet.serve()
        self.fleet.run("key", "create", "release.key")
        delegate = ["trust", "delegate", "release.pub", "--role", "release", "--workload", "coffee"]
        self.fleet.run(*delegate, "--root", self.fleet.root_key)
        (self.folder / "token").write_text(self.fleet.run("enroll", "token", "create")["text"])

    def test_a_device_enrols_syncs_and_reports_itself_healthy_in_each_of_its_lives(self):
        fleet = self.fleet
        first = fleet.device("first", "--enroll-token-file", "token")
        enrolled = fleet.until_device("to be online", is_online)
        # Larger than one window of groups, so that it has to ask again.
        fleet.release("1.0.0", 700_000)
        fleet.until_device("to be healthy", runs("1.0.0"))
        self.assertEqual(fleet.why(), "REASON_KIND_CONVERGED")
        first.kill()
        first.wait()

        # It comes back with what it has kept, without the token, and has nothing to say that the server does not know.
        second = fleet.device("second")
        fleet.until("both to have the same", lambda: fleet.said("second"), lambda said: "live" in said)
        self.assertIn("both have the same", fleet.said("second"))
        self.assertNotIn("enrolled", fleet.said("second"))
        back = fleet.until_device("to be back", runs("1.0.0"))
        self.assertEqual((back["id"], back["registeredAt"]), (enrolled["id"], enrolled["registeredAt"]))
        self.assertEqual(fleet.why(), "REASON_KIND_CONVERGED")

        # Under another stamp it goes on where it was.
        fleet.release("2.0.0", 10)
        fleet.until_device("to have what is new", runs("2.0.0"))
        self.assertEqual(fleet.why(), "REASON_KIND_CONVERGED")
        second.terminate()
        self.assertEqual(second.wait(PATIENCE_S), 0)
        fleet.until_device("to be away", lambda device: not is_online(device))

    def test_a_device_whose_folder_was_set_back_writes_above_what_it_wrote(self):
        fleet = self.fleet
        first = fleet.device("first", "--enroll-token-file", "token")
        fleet.until_device("to be online", is_online)
        fleet.release("1.0.0", 10)
        fleet.until_device("to be healthy", runs("1.0.0"))
        shutil.copytree(self.folder / "device", self.folder / "backup")
        fleet.release("2.0.0", 10)
        fleet.until_device("to have what is new", runs("2.0.0"))
        first.kill()
        first.wait()
        shutil.rmtree(self.folder / "device")
        (self.folder / "backup").rename(self.folder / "device")
        fleet.device("second")
        # What it said of 2.0.0 comes back to it, and it does not believe itself before it has verified that anew.
        fleet.until("it to verify", lambda: fleet.said("second"), lambda said: "coffee 2.0.0 is verified" in said)
        fleet.until_device("to be in sync", runs("2.0.0"))
        fleet.release("3.0.0", 10)
        fleet.until_device("to have what is newer", runs("3.0.0"))
        self.assertEqual(fleet.why(), "REASON_KIND_CONVERGED")

    def test_a_revocation_reaches_the_device_and_a_revoked_device_is_out(self):
        fleet = self.fleet
        first = fleet.device("first", "--enroll-token-file", "token")
        enrolled = fleet.until_device("to be online", is_online)
        revoked = fleet.run("key", "create", "other.key")["keyId"]
        fleet.run("trust", "revoke", revoked, "--kind", "compromised", "--yes")
        fleet.until("the device to have it", lambda: fleet.said("first"), lambda said: f"{revoked} is revoked" in said)
        first.kill()
        first.wait()
        fleet.device("second")
        fleet.until("both to have the same", lambda: fleet.said("second"), lambda said: "live" in said)
        self.assertIn("both have the same", fleet.said("second"))
        fleet.run("device", "revoke", enrolled["name"], "--yes")
        fleet.until("the device to be out", lambda: fleet.said("second"), lambda said: "closed: revoked" in said)

    def test_a_server_of_another_fleet_is_told_nothing(self):
        token = read_token((self.folder / "token").read_text())
        body = b"\x01" + bytes(16) + token.id + token.secret + b"\x01" + with_length(token.addresses[0].encode())
        data = body + tagged_hash("fleetd/token-checksum/1", body, 4)
        (self.folder / "token").write_text("fleetd-" + base64.b32encode(data).decode().lower().rstrip("="))
        self.fleet.device("device", "--enroll-token-file", "token")
        self.fleet.until("it to turn away", lambda: self.fleet.said("device"), lambda said: "wrong fleet" in said)
        self.assertEqual(self.fleet.shown(), {})


if __name__ == "__main__":
    unittest.main()
