/** Pools with short waits, and endpoints for fake registries. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { isSlipwayError } from "../../src/core/errors.ts";
import type { ErrorCode } from "../../src/core/errors.ts";
import type { UpstreamClient } from "../../src/upstream/client.ts";
import { UpstreamPool } from "../../src/upstream/pool.ts";
import type { UpstreamPoolOptions } from "../../src/upstream/pool.ts";
import type { UpstreamEndpoint } from "../../src/upstream/types.ts";
import { tempDir } from "../support/temp.ts";

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

export function startPool(t: Cleanable, options: UpstreamPoolOptions = {}): UpstreamPool {
  const pool = new UpstreamPool({ probeIntervalMs: 200, probeMs: 500, ...options });
  t.after(() => pool.close());
  return pool;
}

export function endpointFor(url: string | readonly string[], rest: Partial<UpstreamEndpoint> = {}): UpstreamEndpoint {
  return { name: "test", urls: typeof url === "string" ? [url] : url, credential: null, trust: "operator", ...rest };
}

export function startClient(
  t: Cleanable,
  url: string | readonly string[],
  options: { pool?: UpstreamPoolOptions; endpoint?: Partial<UpstreamEndpoint> } = {},
): UpstreamClient {
  return startPool(t, options.pool).client(endpointFor(url, options.endpoint));
}

/** For assert.rejects. */
export function withCode(...codes: readonly ErrorCode[]) {
  return (error: unknown): true => {
    if (isSlipwayError(error, ...codes)) return true;
    throw error;
  };
}

export async function readAll(body: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of body as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks);
}

export async function until(condition: () => boolean, what: string, limitMs = 8000): Promise<void> {
  const end = Date.now() + limitMs;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`did not happen in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** A certificate of its own authority for localhost and 127.0.0.x. */
export async function testCertificate(t: Cleanable): Promise<{ key: string; cert: string }> {
  const folder = await tempDir(t);
  const [key, cert] = [join(folder, "key.pem"), join(folder, "cert.pem")];
  const names = "subjectAltName=DNS:localhost,DNS:registry.test,IP:127.0.0.1,IP:127.0.0.2";
  const subject = ["-subj", "/CN=registry.test", "-addext", names, "-days", "2"];
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  execFileSync("openssl", ["req", "-x509", ...curve, ...subject, "-keyout", key, "-out", cert], { stdio: "ignore" });
  return { key: readFileSync(key, "utf8"), cert: readFileSync(cert, "utf8") };
}

/** Pretends that 127.0.0.2 is on the internet, so that a "public" upstream can be run on this machine. */
export const LOOPBACK_ONE_PRIVATE: readonly string[] = ["127.0.0.1/32", "10.0.0.0/8", "::1/128"];
