// `@connectrpc/connect-web`, in a page of another origin: each call is asked for by a preflight first.

import type { Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { type Fleet, checkCalls, checkStranger, withToken } from "./calls.js";

async function run(fleet: Fleet): Promise<string[]> {
  const options = { baseUrl: fleet.url, interceptors: [withToken(fleet)] };
  const transports: Record<string, Transport> = {
    "Connect with JSON": createConnectTransport(options),
    "Connect with protobuf": createConnectTransport({ ...options, useBinaryFormat: true }),
    "Connect by GET": createConnectTransport({ ...options, useHttpGet: true }),
    "gRPC-Web": createGrpcWebTransport(options),
  };
  const done: string[] = [];
  for (const [name, transport] of Object.entries(transports)) {
    try {
      await checkCalls(fleet, transport);
    } catch (error) {
      throw new Error(`${name}: ${String(error)}`);
    }
    done.push(name);
  }
  await checkStranger(createConnectTransport({ baseUrl: fleet.url }));
  done.push("a stranger");
  return done;
}

const fleet = (await (await fetch("/fleet.json")).json()) as Fleet;
const outcome = await run(fleet).then(
  (done) => ({ done }),
  (error: unknown) => ({ error: String(error) }),
);
await fetch("/outcome", { method: "POST", body: JSON.stringify(outcome) });
