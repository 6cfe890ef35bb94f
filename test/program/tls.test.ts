/** Encrypted connections, certificates that change on disk, and the address that challenges name. */
import assert from "node:assert/strict";
import { copyFile, readFile, rename } from "node:fs/promises";
import https from "node:https";
import { join } from "node:path";
import { test } from "node:test";
import { connect } from "node:tls";
import { contentOf } from "../support/oci-client.ts";
import { scope } from "../support/scope.ts";
import { sharedServices, startSlipway } from "../support/slipway.ts";
import { tempDir } from "../support/temp.ts";
import { missingTool, mustRun } from "../support/tools.ts";
import { basic, until } from "./support.ts";

const skip = missingTool("openssl");

async function makeCertificate(folder: string, name: string): Promise<{ cert: string; key: string; fingerprint: string }> {
  const [cert, key] = [join(folder, `${name}.pem`), join(folder, `${name}.key`)];
  const subject = ["-subj", `/CN=${name}`, "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-days", "2"];
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  await mustRun("openssl", ["req", "-x509", ...curve, ...subject, "-keyout", key, "-out", cert]);
  const text = await mustRun("openssl", ["x509", "-in", cert, "-noout", "-fingerprint", "-sha256"]);
  return { cert, key, fingerprint: text.trim().split("=")[1] ?? "" };
}

interface Answer {
  readonly status: number;
  readonly body: Buffer;
  readonly headers: Record<string, unknown>;
}

interface Ask {
  readonly ca: string;
  readonly login?: string;
  readonly method?: string;
  readonly body?: Buffer;
}

function ask(url: string, { ca, login, method, body }: Ask): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const headers = { ...(login ? { authorization: login } : {}), ...(body ? { "content-length": body.length } : {}) };
    const request = https.request(url, { agent: false, ca, method: method ?? "GET", headers });
    request.on("error", reject);
    request.on("response", (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks), headers: response.headers }));
    });
    request.end(body);
  });
}

function presented(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1", rejectUnauthorized: false }, () => {
      resolve(socket.getPeerCertificate().fingerprint256);
      socket.destroy();
    });
    socket.on("error", reject);
  });
}

test("push and pull over TLS; a certificate replaced on disk serves new connections without a restart", { skip }, async (t) => {
  const s = scope(t);
  const folder = await tempDir(s);
  const old = await makeCertificate(folder, "old");
  const renewed = await makeCertificate(folder, "renewed");
  const [cert, key] = [join(folder, "tls.pem"), join(folder, "tls.key")];
  await copyFile(old.cert, cert);
  await copyFile(old.key, key);
  const slipway = await startSlipway(s, {
    env: { ...(await sharedServices(s)), SLIPWAY_TLS_CERT: cert, SLIPWAY_TLS_KEY: key },
    args: ["--role", "proxy"],
    waitReady: false,
  });
  const url = slipway.url.replace("http:", "https:");
  const port = Number(new URL(url).port);
  const ca = await readFile(old.cert, "utf8");
  await until("ready over TLS", async () => {
    assert.equal(slipway.child.exitCode, null, slipway.output());
    return (await ask(`${url}/health/ready`, { ca }).catch(() => null))?.status === 200 ? true : undefined;
  });
  const login = basic("admin", slipway.password);
  const blob = contentOf(Buffer.alloc(3_000_000, "tls "));
  const pushed = await ask(`${url}/v2/library/tls/blobs/uploads/?digest=${blob.digest}`, { ca, login, method: "POST", body: blob.bytes });
  assert.equal(pushed.status, 201);
  assert.deepEqual((await ask(`${url}/v2/library/tls/blobs/${blob.digest}`, { ca, login })).body, blob.bytes);
  const challenge = await ask(`${url}/v2/`, { ca });
  assert.match(String(challenge.headers["www-authenticate"]), new RegExp(`realm="${url}/service/token"`));
  assert.equal(await presented(port), old.fingerprint);

  // One file after the other, as tools do; between them the pair does not fit.
  await copyFile(renewed.key, `${key}.new`);
  await rename(`${key}.new`, key);
  await copyFile(renewed.cert, `${cert}.new`);
  await rename(`${cert}.new`, cert);
  await until("new connections get the new certificate", async () => ((await presented(port)) === renewed.fingerprint ? true : undefined));
  const again = await ask(`${url}/v2/library/tls/blobs/${blob.digest}`, { ca: await readFile(renewed.cert, "utf8"), login });
  assert.deepEqual(again.body, blob.bytes);
  assert.equal(await slipway.stop(), 0);
});

async function realmOf(url: string, headers: Record<string, string> = {}): Promise<string> {
  const answer = await fetch(`${url}/v2/`, { headers });
  assert.equal(answer.status, 401);
  return /realm="([^"]*)"/.exec(String(answer.headers.get("www-authenticate")))?.[1] ?? "";
}

test("challenges name the external address, and believe forwarding headers of trusted proxies only", async (t) => {
  const s = scope(t);
  const shared = await sharedServices(s);
  const start = (env: Record<string, string>): ReturnType<typeof startSlipway> =>
    startSlipway(s, { env: { ...shared, ...env }, args: ["--role", "proxy"] });
  const forwarded = { "x-forwarded-proto": "https" };
  const [plain, trusting, named] = await Promise.all([
    start({}),
    start({ SLIPWAY_TRUSTED_PROXIES: "127.0.0.0/8" }),
    start({ SLIPWAY_EXTERNAL_URL: "https://registry.example.com" }),
  ]);
  assert.equal(await realmOf(plain.url), `${plain.url}/service/token`);
  assert.equal(await realmOf(plain.url, forwarded), `${plain.url}/service/token`);
  assert.equal(await realmOf(trusting.url), `${trusting.url}/service/token`);
  assert.equal(await realmOf(trusting.url, forwarded), `${trusting.url.replace("http:", "https:")}/service/token`);
  assert.equal(await realmOf(named.url, { "x-forwarded-proto": "http" }), "https://registry.example.com/service/token");
});
