// The calls that every client makes, and what must come back.

import { type Client, Code, ConnectError, type Interceptor, type Transport, createClient } from "@connectrpc/connect";
import { ArtifactService } from "../gen/fleetd/artifact/v1/artifact_service_pb.js";
import { ErrorSchema } from "../gen/fleetd/common/v1/error_pb.js";
import { DeviceService } from "../gen/fleetd/device/v1/device_service_pb.js";
import { Health, HealthCheckResponse_ServingStatus } from "../gen/grpc/health/v1/health_pb.js";

/** What a client is told of the server that it calls. */
export interface Fleet {
  /** Where the API is: `https://localhost:4800`. */
  url: string;
  /** A token with the role of a deployer. */
  token: string;
  /** How many devices there are. */
  devices: number;
  /** An artifact that the server has, and its bytes in base64. */
  digest: string;
  content: string;
}

export function check(holds: boolean, what: string): asserts holds {
  if (!holds) {
    throw new Error(what);
  }
}

export function equal<T>(found: T, wanted: T, what: string): void {
  check(found === wanted, `${what}: ${String(found)} instead of ${String(wanted)}`);
}

/** Shows the token with every call, and notes what the answers' headers said. */
export function withToken(fleet: Fleet, seen?: Headers[]): Interceptor {
  return (next) => async (request) => {
    request.header.set("authorization", `Bearer ${fleet.token}`);
    const answer = await next(request);
    seen?.push(answer.header);
    return answer;
  };
}

/** The bytes of the artifact. */
export function content(fleet: Fleet): Uint8Array {
  return Uint8Array.from(atob(fleet.content), (letter) => letter.charCodeAt(0));
}

/** Waits for a call to fail, and says how it did. */
export async function failure(call: Promise<unknown>): Promise<ConnectError> {
  try {
    await call;
  } catch (error) {
    return ConnectError.from(error);
  }
  throw new Error("the call went well");
}

async function checkUnary(fleet: Fleet, devices: Client<typeof DeviceService>): Promise<void> {
  const all = await devices.listDevices({ pageSize: 1000 });
  equal(all.devices.length, fleet.devices, "devices");
  const first = all.devices[0];
  check(first !== undefined, "there is a first device");
  equal(first.labels["shop"], "7", "a label");
  check(first.registeredAt !== undefined && first.registeredAt.seconds > 0n, "a date");
  const explained = await devices.explainDevice({ device: first.name });
  equal(explained.explanation?.device?.id, first.id, "the device of an explanation");
}

async function checkServerStream(fleet: Fleet, transport: Transport): Promise<void> {
  const artifacts = createClient(ArtifactService, transport);
  const wanted = content(fleet);
  let place = 0;
  let answers = 0;
  for await (const part of artifacts.downloadArtifact({ digest: fleet.digest })) {
    const same = part.content.every((byte, at) => byte === wanted[place + at]);
    check(same, `the artifact is another from byte ${place} on`);
    place += part.content.length;
    answers += 1;
  }
  equal(place, wanted.length, "bytes of the artifact");
  check(answers > 1, `a stream of several messages, not ${answers}`);
}

async function checkEndlessStream(devices: Client<typeof DeviceService>): Promise<void> {
  const abort = new AbortController();
  let seen = 0;
  const watching = (async () => {
    for await (const _ of devices.watchDevices({}, { signal: abort.signal })) {
      seen += 1;
      abort.abort();
    }
  })();
  equal((await failure(watching)).code, Code.Canceled, "a watch that its caller ended");
  check(seen > 0, "it was answered before that");

  const late = (async () => {
    for await (const _ of devices.watchDevices({}, { timeoutMs: 300 })) {
      // It goes on until its deadline.
    }
  })();
  equal((await failure(late)).code, Code.DeadlineExceeded, "a watch with a deadline");
}

async function checkErrors(devices: Client<typeof DeviceService>): Promise<void> {
  const unknown = await failure(devices.getDevice({ device: "no-such-device" }));
  equal(unknown.code, Code.NotFound, "the code of an unknown device");
  const [detail] = unknown.findDetails(ErrorSchema);
  check(detail !== undefined, "the error has a detail");
  equal(detail.code, "device.unknown", "the name of the error");
  equal(detail.nextCommand, "fleetd device list", "what to do about it");
  check(detail.helpUrl.endsWith("/errors/device.unknown"), `a page about it: ${detail.helpUrl}`);

  const forbidden = await failure(devices.revokeDevice({ requestId: "r", device: "no-such-device" }));
  equal(forbidden.code, Code.PermissionDenied, "what a deployer may not do");
}

/** Makes all calls that a transport without client streams can make. */
export async function checkCalls(fleet: Fleet, transport: Transport): Promise<void> {
  const devices = createClient(DeviceService, transport);
  const health = await createClient(Health, transport).check({});
  equal(health.status, HealthCheckResponse_ServingStatus.SERVING, "health");
  await checkUnary(fleet, devices);
  await checkServerStream(fleet, transport);
  await checkEndlessStream(devices);
  await checkErrors(devices);
}

/** Checks what somebody is told who shows no token. */
export async function checkStranger(transport: Transport): Promise<void> {
  const refused = await failure(createClient(DeviceService, transport).listDevices({}));
  equal(refused.code, Code.Unauthenticated, "without a token");
  equal(refused.findDetails(ErrorSchema)[0]?.code, "access.token.missing", "the name of the error");
}
