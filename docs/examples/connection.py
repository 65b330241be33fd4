"""How messages travel: QUIC, one stream for each class, frames and close codes (docs/protocol.md, 1 to 3)."""

import asyncio
import socket
import ssl
import sys
import tempfile
from contextlib import asynccontextmanager
from enum import IntEnum
from pathlib import Path

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, StreamDataReceived
from cryptography import x509
from grpc_tools import protoc

from layout import ACTUAL, DESIRED, TRUST, varint

CONTROL, ARTIFACTS = 1, 6
CLASS_OF = {TRUST: 2, DESIRED: 3, ACTUAL: 4}
FRAME_BYTES_MAX, PUSH_BYTES_MAX, PUSH_ENVELOPES_MAX = 64 << 10, 60 << 10, 256
HELLO_TIMEOUT_S, KEEP_ALIVE_S, IDLE_TIMEOUT_S, DRAIN_TIMEOUT_S = 10, 25, 80, 3


class Close(IntEnum):
    """Why a connection ends (3)."""

    DONE = 0
    REDIAL = 1
    REPLACED = 2
    BUSY = 3
    REVOKED = 10
    RETIRED = 11
    UNKNOWN_DEVICE = 12
    NEEDS_AGENT = 20
    WRONG_FLEET = 21
    IMPOSTOR = 22
    FRAME_TOO_LARGE = 30
    MALFORMED_FRAME = 31
    UNEXPECTED_MESSAGE = 32
    OUTBOX_OVERFLOW = 33
    TIMEOUT = 34
    INTERNAL_ERROR = 40

    @classmethod
    def _missing_(cls, value):
        return cls.INTERNAL_ERROR

    @property
    def needs_a_person(self):
        return 10 <= self < 30


class Closed(Exception):
    """The connection is over."""

    def __init__(self, code, reason=""):
        self.code = Close(code)
        super().__init__(f"closed: {self.code.name.lower().replace('_', ' ')}{reason and ', ' + str(reason)}")


def read_schemas():
    """Makes Python of the schemas, and keeps no file of it."""
    proto, known = Path(__file__).resolve().parents[2] / "proto", Path(protoc.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        files = ["fleetd/common/v1/facts.proto", "fleetd/sync/v1/frame.proto"]
        if protoc.main(["protoc", f"-I{proto}", f"-I{known}", f"--python_out={folder}", *files]):
            sys.exit(f"the schemas in {proto} cannot be compiled")
        sys.path.insert(0, folder)
        try:
            from fleetd.sync.v1 import frame_pb2
        finally:
            sys.path.remove(folder)
    return frame_pb2


wire = read_schemas()


class Connection(QuicConnectionProtocol):
    """Frames in and out."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.inbox, self.is_shaken, self.over = asyncio.Queue(), asyncio.Event(), None
        self.incoming, self.outgoing = {}, {}

    def quic_event_received(self, event):
        match event:
            case HandshakeCompleted():
                self.is_shaken.set()
            case StreamDataReceived(data=data, stream_id=stream) if not self.over:
                try:
                    self.take(stream, data)
                except Closed as closed:
                    self.end(closed)
            case ConnectionTerminated(error_code=code, frame_type=kind, reason_phrase=reason):
                # Where QUIC names a kind of frame, the code is its own, and none of section 3.
                is_ours = kind is None
                self.end(Closed(code if is_ours else Close.INTERNAL_ERROR, reason if is_ours else f"QUIC: {reason}"))

    def take(self, stream, data):
        """Takes bytes of a stream: the class, then frames. The class stays in front of what is not a whole frame."""
        buffer = self.incoming.setdefault(stream, bytearray())
        is_new = not buffer
        buffer += data
        if is_new and any(other[:1] == buffer[:1] for at, other in self.incoming.items() if at != stream and buffer):
            raise Closed(Close.UNEXPECTED_MESSAGE, "a second stream of one class")
        while (frame := self.whole_frame(buffer)) is not None:
            if buffer[0] <= ARTIFACTS:
                self.inbox.put_nowait(read_frame(frame))

    @staticmethod
    def whole_frame(buffer):
        """Cuts the first frame out, if it is whole."""
        length = 0
        for at, byte in enumerate(buffer[1:4]):
            length |= (byte & 0x7F) << 7 * at
            if length > FRAME_BYTES_MAX or at == 2 and byte >= 0x80:
                raise Closed(Close.FRAME_TOO_LARGE)
            if byte < 0x80:
                start, end = at + 2, at + 2 + length
                if len(buffer) < end:
                    return None
                frame = bytes(buffer[start:end])
                del buffer[1:end]
                return frame
        return None

    def end(self, closed):
        """Ends the connection, unless it is over. What came before is still received."""
        if not self.over:
            self.over = closed
            self.is_shaken.set()
            self.inbox.put_nowait(None)
            self.close(closed.code)

    async def receive(self, patience_s=None):
        """The next frame. Raises what the connection ended with."""
        try:
            frame = await asyncio.wait_for(self.inbox.get(), patience_s)
        except TimeoutError:
            raise Closed(Close.TIMEOUT, "the server said nothing") from None
        if frame is None:
            raise self.over
        return frame

    def send(self, number, **kind):
        """Sends a frame on the stream of its class, which is opened when it is first needed."""
        frame = wire.Frame(**kind).SerializeToString()
        if number not in self.outgoing:
            self.outgoing[number] = self._quic.get_next_available_stream_id(is_unidirectional=True)
            self._quic.send_stream_data(self.outgoing[number], bytes([number]))
        self._quic.send_stream_data(self.outgoing[number], varint(len(frame)) + frame)
        self.transmit()

    def push(self, document, envelopes):
        """Sends envelopes of one lane, as many in a Push as may be."""
        batch = []
        for envelope in envelopes:
            if len(batch) == PUSH_ENVELOPES_MAX or sum(map(len, batch)) + len(envelope) > PUSH_BYTES_MAX:
                self.send(CLASS_OF[document], push=wire.Push(envelopes=batch))
                batch = []
            batch.append(envelope)
        if batch:
            self.send(CLASS_OF[document], push=wire.Push(envelopes=batch))

    async def keep_alive(self):
        while True:
            await asyncio.sleep(KEEP_ALIVE_S)
            await self.ping()

    @property
    def server_leaf(self):
        """The certificate whose key the handshake has shown the server to hold; aioquic has no public name for it."""
        return self._quic.tls._peer_certificate


def read_frame(data):
    try:
        return wire.Frame.FromString(data)
    except Exception as error:  # Its class differs between the runtimes of protobuf.
        raise Closed(Close.MALFORMED_FRAME) from error


@asynccontextmanager
async def dial(address, key, certificates):
    """A connection to a server, of which nothing is known yet but that it holds the key of its certificate."""
    # Nothing else is checked in the handshake (1): who the server is, its Hello shows.
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["fleetd/1"], verify_mode=ssl.CERT_NONE)
    configuration.idle_timeout, configuration.server_name = IDLE_TIMEOUT_S, "fleetd"
    if certificates:
        configuration.certificate, *configuration.certificate_chain = map(x509.load_der_x509_certificate, certificates)
        configuration.private_key = key.secret
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    family, *_, at = (await loop.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM))[0]
    transport, connection = await loop.create_datagram_endpoint(
        lambda: Connection(QuicConnection(configuration=configuration)),
        local_addr=("::" if family == socket.AF_INET6 else "0.0.0.0", 0),
        family=family,
    )
    keep_alive = asyncio.create_task(connection.keep_alive())
    try:
        connection.connect(at)
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            await connection.is_shaken.wait()
        if connection.over:
            raise connection.over
        yield connection
    except TimeoutError:
        raise Closed(Close.TIMEOUT, "nobody answers") from None
    except Closed as closed:
        connection.end(closed)
        raise
    finally:
        keep_alive.cancel()
        connection.end(Closed(Close.DONE))
        await asyncio.wait([asyncio.create_task(connection.wait_closed())], timeout=DRAIN_TIMEOUT_S)
        transport.close()
