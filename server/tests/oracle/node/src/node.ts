// `@connectrpc/connect-node`, in each protocol, on both versions of HTTP, with and without gzip.

import { readFileSync } from "node:fs";
import { type Transport, createClient } from "@connectrpc/connect";
import {
  compressionGzip,
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";
import { ArtifactService } from "../gen/fleetd/artifact/v1/artifact_service_pb.js";
import { DeviceService } from "../gen/fleetd/device/v1/device_service_pb.js";
import { type Fleet, checkCalls, checkStranger, content, equal, withToken } from "./calls.js";

const fleet = JSON.parse(readFileSync(process.env["FLEETD_FLEET"] ?? "", "utf8")) as Fleet;
const ca = readFileSync(process.env["FLEETD_CA"] ?? "");

type HttpVersion = "1.1" | "2";

/** What all transports share: where, with which CA, and what their answers' headers said. */
function options<V extends HttpVersion>(httpVersion: V, seen: Headers[], token = true) {
  return {
    baseUrl: fleet.url,
    httpVersion,
    nodeOptions: { ca },
    interceptors: token ? [withToken(fleet, seen)] : [],
    acceptCompression: [compressionGzip],
  };
}

const gzip = { sendCompression: compressionGzip, compressMinBytes: 1 };
const plain = { acceptCompression: [] };

type Make = (version: HttpVersion, seen: Headers[], more: object, token?: boolean) => Transport;

const protocols: Record<string, { make: Make; versions: HttpVersion[]; encoding: string; clientStreams: boolean }> = {
  "Connect with JSON": {
    make: (version, seen, more, token) => createConnectTransport({ ...options(version, seen, token), ...more }),
    versions: ["1.1", "2"],
    encoding: "content-encoding",
    clientStreams: true,
  },
  "Connect with protobuf": {
    make: (version, seen, more, token) =>
      createConnectTransport({ ...options(version, seen, token), useBinaryFormat: true, ...more }),
    versions: ["1.1", "2"],
    encoding: "content-encoding",
    clientStreams: true,
  },
  "Connect by GET": {
    make: (version, seen, more, token) =>
      createConnectTransport({ ...options(version, seen, token), useHttpGet: true, ...more }),
    versions: ["1.1", "2"],
    encoding: "content-encoding",
    clientStreams: true,
  },
  "gRPC-Web": {
    make: (version, seen, more, token) => createGrpcWebTransport({ ...options(version, seen, token), ...more }),
    versions: ["1.1", "2"],
    encoding: "grpc-encoding",
    clientStreams: false,
  },
  gRPC: {
    make: (version, seen, more, token) => createGrpcTransport({ ...options(version, seen, token), ...more } as never),
    versions: ["2"],
    encoding: "grpc-encoding",
    clientStreams: true,
  },
};

/** A client stream, in two parts; what is there already is known to the server by its digest. */
async function checkClientStream(transport: Transport): Promise<void> {
  const all = content(fleet);
  const sizeBytes = BigInt(all.length);
  async function* parts() {
    const half = all.length / 2;
    yield { requestId: `upload ${Math.random()}`, digest: fleet.digest, sizeBytes, content: all.slice(0, half) };
    yield { content: all.slice(half) };
  }
  const answer = await createClient(ArtifactService, transport).uploadArtifact(parts());
  equal(answer.complete, true, "the upload is complete");
}

async function checkPacking(make: Make, version: HttpVersion, encoding: string): Promise<void> {
  for (const [more, wanted] of [
    [gzip, "gzip"],
    [plain, null],
  ] as const) {
    const seen: Headers[] = [];
    const transport = make(version, seen, more);
    const all = await createClient(DeviceService, transport).listDevices({ pageSize: 1000 });
    equal(all.devices.length, fleet.devices, "devices");
    const said = seen[0]?.get(encoding) ?? null;
    equal(said, wanted, `${encoding} of a long answer`);
  }
}

for (const [name, { make, versions, encoding, clientStreams }] of Object.entries(protocols)) {
  for (const version of versions) {
    const began = Date.now();
    try {
      for (const more of [{}, gzip]) {
        await checkCalls(fleet, make(version, [], more));
        if (clientStreams) {
          await checkClientStream(make(version, [], more));
        }
      }
      await checkPacking(make, version, encoding);
      await checkStranger(make(version, [], {}, false));
    } catch (error) {
      console.error(`${name} over HTTP/${version}:`, error);
      process.exit(1);
    }
    console.log(`${name} over HTTP/${version}: ${Date.now() - began} ms`);
  }
}
process.exit(0);
