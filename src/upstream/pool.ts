/** Owns what all registries share: connections, tokens, host gates, memory of habits. One per process. */
import { createHash } from "node:crypto";
import { LRUCache } from "lru-cache";
import { systemClock } from "../core/clock.ts";
import type { Clock } from "../core/clock.ts";
import { SlipwayError } from "../core/errors.ts";
import { AddressGuard } from "./address-guard.ts";
import type { Resolver } from "./address-guard.ts";
import { Authenticator } from "./authenticator.ts";
import { discard } from "./body.ts";
import { UpstreamClient } from "./client.ts";
import { Connections } from "./connections.ts";
import type { TlsSettings } from "./connections.ts";
import { Counters } from "./counters.ts";
import type { CallCount } from "./counters.ts";
import { credentialKey, secretsOf } from "./credentials.ts";
import { resolveEndpoint } from "./endpoint.ts";
import type { ResolvedEndpoint } from "./endpoint.ts";
import { Exchange } from "./exchange.ts";
import { HostGate } from "./host-gate.ts";
import type { HostGateOptions, HostGateStats } from "./host-gate.ts";
import { Quirks } from "./quirks.ts";
import { RedirectMemory } from "./redirect-memory.ts";
import { localHostState } from "./shared-host-state.ts";
import type { SharedHostState } from "./shared-host-state.ts";
import { DEFAULT_STALL_LIMITS } from "./stall-watchdog.ts";
import type { StallLimits } from "./stall-watchdog.ts";
import { TokenCache } from "./token-cache.ts";
import type { TokenStats } from "./token-cache.ts";
import type { UpstreamEndpoint } from "./types.ts";

type GateTuning = Pick<
  HostGateOptions,
  "metaConcurrency" | "bulkConcurrency" | "queueBound" | "reserve" | "breakerThreshold" | "probeIntervalMs"
>;

export interface UpstreamPoolOptions extends GateTuning {
  readonly clock?: Clock | undefined;
  readonly shared?: SharedHostState | undefined;
  readonly onSecret?: ((value: string) => void) | undefined;
  /** Live processes that share the limits of a host. */
  readonly processes?: (() => number) | undefined;
  readonly deny?: readonly string[] | undefined;
  readonly privateRanges?: readonly string[] | undefined;
  readonly resolver?: Resolver | undefined;
  readonly connectMs?: number | undefined;
  readonly firstByteMs?: number | undefined;
  readonly idleBodyMs?: number | undefined;
  readonly probeMs?: number | undefined;
  readonly stall?: StallLimits | undefined;
  readonly attempts?: number | undefined;
  readonly userAgent?: string | undefined;
}

export interface UpstreamStats {
  readonly calls: readonly CallCount[];
  readonly hosts: readonly HostGateStats[];
  readonly tokens: Readonly<TokenStats>;
  readonly retries: number;
  readonly failovers: number;
  readonly resumes: number;
  readonly stalls: number;
  readonly bodyBytes: number;
}

const MAX_GATES = 1000;
const MAX_CLIENTS = 1000;
const USER_AGENT = "slipway";

export class UpstreamPool {
  readonly #options: UpstreamPoolOptions;
  readonly #clock: Clock;
  readonly #shared: SharedHostState;
  readonly #connections: Connections;
  readonly #tokens: TokenCache;
  readonly #quirks = new Quirks();
  readonly #counters = new Counters();
  readonly #gates = new LRUCache<string, HostGate>({ max: MAX_GATES, dispose: (gate) => gate.close() });
  readonly #clients = new LRUCache<string, UpstreamClient>({ max: MAX_CLIENTS });
  #closed = false;

  constructor(options: UpstreamPoolOptions = {}) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#shared = options.shared ?? localHostState;
    const guard = new AddressGuard({ deny: options.deny, privateRanges: options.privateRanges, resolver: options.resolver });
    this.#connections = new Connections({ guard, connectMs: options.connectMs });
    this.#tokens = new TokenCache({ clock: this.#clock });
    this.#shared.onChange((hostKey, signals) => this.#gates.peek(hostKey)?.receive(signals));
  }

  /** The same endpoint gives the same client; another credential gives another. */
  client(endpoint: UpstreamEndpoint): UpstreamClient {
    if (this.#closed) throw new SlipwayError("DRAINING");
    const key = createHash("sha256").update(JSON.stringify(endpoint)).digest("hex");
    const known = this.#clients.get(key);
    if (known) return known;
    const client = this.#build(resolveEndpoint(endpoint));
    this.#clients.set(key, client);
    return client;
  }

  stats(): UpstreamStats {
    const { retries, failovers, resumes, stalls, bodyBytes } = this.#counters;
    const hosts = [...this.#gates.values()].map((gate) => gate.stats());
    return { calls: this.#counters.calls(), hosts, tokens: { ...this.#tokens.stats }, retries, failovers, resumes, stalls, bodyBytes };
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#clients.clear();
    this.#gates.clear();
    await this.#connections.close();
  }

  #build(resolved: ResolvedEndpoint): UpstreamClient {
    const { endpoint } = resolved;
    const onSecret = this.#options.onSecret ?? (() => undefined);
    for (const secret of secretsOf(endpoint.credential)) onSecret(secret);
    const tls: TlsSettings = { ca: endpoint.ca ?? null, insecure: endpoint.insecure ?? false };
    const counters = this.#counters;
    const clock = this.#clock;
    const authenticator = new Authenticator({
      resolved,
      connections: this.#connections,
      tokens: this.#tokens,
      clock,
      tls,
      onSecret,
      onTokenCall: (status) => counters.call(resolved.bases[0]?.host ?? "other", "token", status),
      tokenMs: this.#options.firstByteMs,
    });
    const exchange = new Exchange({
      resolved,
      connections: this.#connections,
      authenticator,
      counters,
      clock,
      tls,
      timeouts: { firstByteMs: this.#options.firstByteMs ?? 10_000, idleBodyMs: this.#options.idleBodyMs ?? 30_000 },
      userAgent: this.#options.userAgent ?? USER_AGENT,
      attempts: this.#options.attempts,
      gateFor: (base) => this.#gate(resolved, base, tls),
    });
    const stall = this.#options.stall ?? DEFAULT_STALL_LIMITS;
    const shared = { exchange, authenticator, resolved, quirks: this.#quirks, counters, clock };
    return new UpstreamClient({ ...shared, places: new RedirectMemory(), stall, onSecret });
  }

  #gate(resolved: ResolvedEndpoint, base: URL, tls: TlsSettings): HostGate {
    const key = `${base.origin}|${credentialKey(resolved.endpoint.credential)}`;
    const known = this.#gates.get(key);
    if (known) return known;
    const { metaConcurrency, bulkConcurrency, queueBound, reserve, breakerThreshold, probeIntervalMs, processes } = this.#options;
    const gate = new HostGate({
      key,
      host: base.host,
      clock: this.#clock,
      shared: this.#shared,
      probe: () => this.#probe(base, tls),
      processes,
      metaConcurrency,
      bulkConcurrency,
      queueBound,
      reserve,
      breakerThreshold,
      probeIntervalMs,
    });
    this.#gates.set(key, gate);
    return gate;
  }

  /** Any answer that is not about trouble shows life; a demand for a token does, too. */
  async #probe(base: URL, tls: TlsSettings): Promise<boolean> {
    const deadline = this.#options.probeMs ?? 3000;
    const answer = await this.#connections.send({
      url: new URL(`${base.pathname.replace(/\/$/, "")}/v2/`, base.origin),
      method: "GET",
      headers: { accept: "*/*", "accept-encoding": "identity", "user-agent": this.#options.userAgent ?? USER_AGENT },
      reach: "operator",
      tls,
      firstByteMs: deadline,
      idleBodyMs: deadline,
      signal: AbortSignal.timeout(deadline),
    });
    this.#counters.call(base.host, "probe", answer.status);
    await discard(answer.body);
    return answer.status < 500;
  }
}
