/**
 * A server in a process of its own for the HTTP benches: the registry as it is composed, or a bare node:http server that answers given
 * bytes and headers. Told what to be by the environment; says its port to the parent.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { startRegistry } from "../support/registry-server.ts";

export interface BareAnswer {
  readonly headers: string[];
  readonly body: string;
}

export interface ProcessOptions {
  readonly kind: "registry" | "bare";
  readonly answers?: Readonly<Record<string, BareAnswer>>;
  readonly databaseUrl?: string;
  readonly dataDir?: string;
  readonly logLevel?: string;
  readonly auth?: "open" | "anonymous-pull" | "required";
  /** A port to share with other processes. */
  readonly port?: number;
}

const options = JSON.parse(process.env["SLIPWAY_BENCH_PROCESS"] ?? "{}") as ProcessOptions;
const cleanups: (() => Promise<void> | void)[] = [];

function bare(): void {
  const answers = new Map(
    Object.entries(options.answers ?? {}).map(([url, { headers, body }]) => [url, { headers, body: Buffer.from(body, "base64") }]),
  );
  const server = createServer((req, res) => {
    const answer = answers.get(req.url ?? "");
    if (!answer) {
      res.writeHead(404, ["Content-Length", "0"]);
      res.end();
      return;
    }
    res.writeHead(200, answer.headers);
    res.end(answer.body);
  });
  server.keepAliveTimeout = 75_000;
  server.listen({ port: options.port ?? 0, host: "127.0.0.1", reusePort: options.port !== undefined }, () => {
    process.send?.({ port: (server.address() as AddressInfo).port });
  });
}

async function registry(): Promise<void> {
  const started = await startRegistry(
    { after: (cleanup) => void cleanups.push(cleanup) },
    {
      auth: options.auth ?? "required",
      backing: { databaseUrl: options.databaseUrl ?? "", dataDir: options.dataDir ?? "" },
      env: { SLIPWAY_LOG_LEVEL: options.logLevel ?? "error" },
      ...(options.port === undefined ? {} : { port: options.port }),
    },
  );
  process.send?.({ port: started.port });
}

process.once("disconnect", () => {
  void (async () => {
    for (const cleanup of cleanups.toReversed()) await cleanup();
    process.exit(0);
  })();
});
if (options.kind === "bare") bare();
else await registry();
