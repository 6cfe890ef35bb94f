/** What the replication benches share: images in a source registry, the product with its API and workers, registries and policies by REST. */
import { randomFillSync } from "node:crypto";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { testTemporalAddress } from "../support/services.ts";
import { sharedServices, startSlipway } from "../support/slipway.ts";
import type { RunningSlipway, SlipwayOptions } from "../support/slipway.ts";
import { contentOf, imageDocument, OciClient, OCI_IMAGE } from "../support/oci-client.ts";
import type { Content } from "../support/oci-client.ts";
import { findTool } from "../support/tools.ts";
import { STARTED_AS, STARTED_WITH } from "./http-load.ts";
import type { Upstream } from "./proxy-setting.ts";

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

export interface ImageSet {
  readonly repositories: number;
  readonly tags: number;
  /** Layers of a tag, of which half are the same in every tag of the repository. */
  readonly layers: number;
  readonly layerBytes: number;
  /** One image more, of four layers of this size; none when 0. */
  readonly largeBytes: number;
}

export interface Filled {
  /** Digest of each tag, by "repository:tag". */
  readonly tags: ReadonlyMap<string, string>;
  readonly blobs: number;
  readonly bytes: number;
}

/** Random images, straight to the registry. */
export async function fillRegistry(registry: Upstream, set: ImageSet): Promise<Filled> {
  const writer = new ImageWriter(registry);
  for (let repository = 0; repository < set.repositories; repository += 1) {
    const name = `bench/repo${String(repository).padStart(2, "0")}`;
    const shared: object[] = [];
    for (let index = 0; index < set.layers / 2; index += 1) shared.push(await writer.layer(name, set.layerBytes));
    for (let tag = 0; tag < set.tags; tag += 1) {
      const own: object[] = [];
      for (let index = shared.length; index < set.layers; index += 1) own.push(await writer.layer(name, set.layerBytes));
      await writer.image(name, `v${tag}`, [...shared, ...own]);
    }
  }
  if (set.largeBytes > 0) {
    const layers: object[] = [];
    for (let index = 0; index < 4; index += 1) layers.push(await writer.layer("bench/large", set.largeBytes));
    await writer.image("bench/large", "v0", layers);
  }
  return writer.filled;
}

class ImageWriter {
  readonly #client: OciClient;
  readonly #tags = new Map<string, string>();
  #blobs = 0;
  #bytes = 0;

  constructor(registry: Upstream) {
    this.#client = new OciClient(registry.url);
  }

  get filled(): Filled {
    return { tags: this.#tags, blobs: this.#blobs, bytes: this.#bytes };
  }

  async layer(name: string, size: number): Promise<object> {
    const layer = contentOf(randomFillSync(Buffer.allocUnsafe(size)));
    await this.#blob(name, layer);
    return { mediaType: "application/vnd.oci.image.layer.v1.tar+gzip", digest: layer.digest, size };
  }

  async image(name: string, tag: string, layers: object[]): Promise<void> {
    const config = contentOf(JSON.stringify({ architecture: "amd64", os: "linux", name, tag }));
    await this.#blob(name, config);
    const manifest = contentOf(JSON.stringify(imageDocument(config, null, { layers })));
    const answer = await this.#client.putManifest(name, tag, manifest.bytes, { "content-type": OCI_IMAGE });
    if (answer.status !== 201) throw new Error(`manifest was not pushed: ${answer.status} ${await answer.text()}`);
    this.#tags.set(`${name}:${tag}`, manifest.digest);
  }

  async #blob(name: string, content: Content): Promise<void> {
    const answer = await this.#client.finish(await this.#client.location(name), content.digest, content.bytes);
    if (answer.status !== 201) throw new Error(`blob was not pushed: ${answer.status} ${await answer.text()}`);
    await answer.arrayBuffer();
    this.#blobs += 1;
    this.#bytes += content.bytes.length;
  }
}

/** Every tag there, with the digest of the source. */
export async function missingTags(registry: Upstream, wanted: ReadonlyMap<string, string>): Promise<string[]> {
  const wrong: string[] = [];
  for (const [name, digest] of wanted) {
    const [repository, tag] = name.split(":");
    const answer = await fetch(`${registry.url}/v2/${repository}/manifests/${tag}`, { method: "HEAD", headers: { accept: OCI_IMAGE } });
    if (answer.headers.get("docker-content-digest") !== digest) wrong.push(name);
  }
  return wrong;
}

/** The product with everything that replication needs, in a process of its own. */
export async function startReplication(t: Cleanable, options: SlipwayOptions = {}): Promise<ReplicationApi> {
  const services = options.env?.["SLIPWAY_DATABASE_URL"] === undefined ? await sharedServices(t) : {};
  // One server for all processes of a bench: by itself each would start its own.
  const temporal = { TEMPORAL_ADDRESS: await testTemporalAddress() };
  const running = await startSlipway(t, {
    args: ["--role", "api", "--role", "replication", "--role", "refresh", "--role", "maintenance"],
    ...options,
    env: {
      ...STARTED_AS,
      ...temporal,
      ...services,
      NODE_OPTIONS: [...STARTED_WITH, process.env["SLIPWAY_BENCH_NODE_FLAGS"] ?? ""].join(" ").trim(),
      SLIPWAY_LOG_LEVEL: process.env["SLIPWAY_BENCH_LOG_LEVEL"] ?? "error",
      ...options.env,
    },
  });
  return new ReplicationApi(running);
}

export interface ExecutionView {
  readonly id: number;
  readonly status: string;
  readonly status_text: string;
  readonly start_time: string;
  readonly end_time: string;
  readonly total: number;
  readonly succeed: number;
  readonly failed: number;
}

/** Replication by Harbor's REST. */
export class ReplicationApi {
  readonly running: RunningSlipway;
  readonly #authorization: string;

  constructor(running: RunningSlipway) {
    this.running = running;
    this.#authorization = `Basic ${Buffer.from(`admin:${running.password}`).toString("base64")}`;
  }

  async call(method: string, path: string, body?: unknown): Promise<Response> {
    const answer = await fetch(`${this.running.url}/api/v2.0${path}`, {
      method,
      headers: { authorization: this.#authorization, "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
    return answer;
  }

  async create(path: string, body: unknown): Promise<number> {
    const answer = await this.call("POST", path, body);
    await answer.arrayBuffer();
    return Number(/(\d+)$/.exec(answer.headers.get("location") ?? "")?.[1]);
  }

  registry(name: string, url: string): Promise<number> {
    return this.create("/registries", { name, url, type: "docker-registry", insecure: true });
  }

  async policy(name: string, source: number, target: number, more: object = {}): Promise<number> {
    return this.create("/replication/policies", {
      name,
      src_registry: { id: source },
      dest_registry: { id: target },
      dest_namespace_replace_count: 0,
      trigger: { type: "manual" },
      filters: [{ type: "name", value: "bench/**" }],
      enabled: true,
      override: true,
      ...more,
    });
  }

  start(policyId: number): Promise<number> {
    return this.create("/replication/executions", { policy_id: policyId });
  }

  async execution(id: number): Promise<ExecutionView> {
    return (await (await this.call("GET", `/replication/executions/${id}`)).json()) as ExecutionView;
  }

  async finished(id: number, pollMs = 200): Promise<ExecutionView> {
    for (;;) {
      const execution = await this.execution(id);
      if (["Succeed", "Failed", "Stopped"].includes(execution.status)) return execution;
      await delay(pollMs);
    }
  }

  /** From the start of the execution to its final status, as its own row says, in seconds. */
  async run(policyId: number): Promise<{ seconds: number; execution: ExecutionView }> {
    const execution = await this.finished(await this.start(policyId));
    return { seconds: (Date.parse(execution.end_time) - Date.parse(execution.start_time)) / 1000, execution };
  }
}

/** A program to compare with: in the folder that SLIPWAY_BENCH_PEERS names, else on the PATH. */
export function findPeer(name: string): string | null {
  const folder = process.env["SLIPWAY_BENCH_PEERS"];
  const path = folder === undefined ? null : join(folder, name);
  return path !== null && existsSync(path) ? path : findTool(name);
}
