/** One attempt at one address: sends the call with its authorization, answers one challenge, follows redirects within the rules. */
import { SlipwayError } from "../core/errors.ts";
import type { Reach } from "./address-guard.ts";
import type { Authenticator, Authorization } from "./authenticator.ts";
import { discard } from "./body.ts";
import type { Connections, TlsSettings, WireAnswer } from "./connections.ts";
import type { Counters } from "./counters.ts";
import type { ResolvedEndpoint } from "./endpoint.ts";
import { isRedirect, MAX_REDIRECTS, nextHop } from "./redirects.ts";
import type { Hop } from "./redirects.ts";
import type { UpstreamAnswer, UpstreamRequest } from "./request.ts";

export interface Timeouts {
  readonly firstByteMs: number;
  readonly idleBodyMs: number;
}

export interface TripOptions {
  readonly resolved: ResolvedEndpoint;
  readonly connections: Connections;
  readonly authenticator: Authenticator;
  readonly counters: Counters;
  readonly tls: TlsSettings;
  readonly timeouts: Timeouts;
  readonly userAgent: string;
}

export interface TripResult {
  readonly answer: UpstreamAnswer;
  /** The registry itself answered, not a place it redirected to. */
  readonly atBase: boolean;
  /** A password, not a token for one repository, was turned down. */
  readonly credentialRefused: boolean;
  /** A stale token was in the way of a body that cannot be sent twice; it is gone now. */
  readonly tokenDropped: boolean;
}

export class Trip {
  readonly #options: TripOptions;
  readonly #base: URL;
  readonly #request: UpstreamRequest;
  #hop: Hop;
  #reach: Reach = "operator";
  #authorization: Authorization | null = null;
  #tokenDropped = false;

  constructor(options: TripOptions, start: { readonly base: URL; readonly url: URL; readonly request: UpstreamRequest }) {
    this.#options = options;
    this.#base = start.base;
    this.#request = start.request;
    const headers = { accept: "*/*", "accept-encoding": "identity", "user-agent": options.userAgent, ...start.request.headers };
    this.#hop = { url: start.url, method: start.request.method, headers };
  }

  get atBase(): boolean {
    return this.#hop.url.origin === this.#base.origin;
  }

  get host(): string {
    return this.#hop.url.host;
  }

  async run(): Promise<TripResult> {
    this.#reach = await this.#reachOf(this.#hop.url, this.#base);
    for (let redirects = 0; ; redirects += 1) {
      const wire = this.atBase ? await this.#sendAuthorized() : await this.#send();
      const location = first(wire.headers["location"]);
      if (!isRedirect(wire.status, location)) return this.#result(wire);
      if (redirects >= MAX_REDIRECTS)
        throw new SlipwayError("UPSTREAM_INVALID", { detail: { host: this.#base.host, reason: "REDIRECTS" } });
      await discard(wire.body);
      await this.#redirect(wire.status, location);
    }
  }

  async #redirect(status: number, location: string): Promise<void> {
    const from = this.#hop.url;
    const next = nextHop(this.#hop, status, location);
    const streamed = this.#request.body !== undefined && !Buffer.isBuffer(this.#request.body);
    if (streamed || (next.method === "GET" && this.#hop.method !== "GET")) {
      throw new SlipwayError("UPSTREAM_INVALID", { detail: { host: from.host, status, reason: "REDIRECT" } });
    }
    // By where the redirecting answer came from: a chain that was in public once does not come back to private addresses.
    this.#reach = await this.#reachOf(next.url, from);
    this.#hop = next;
  }

  async #reachOf(url: URL, namedBy: URL): Promise<Reach> {
    if (this.#options.resolved.origins.has(url.origin)) return "operator";
    return (await this.#options.connections.classOf(namedBy)) === "private" ? "operator" : "public";
  }

  async #sendAuthorized(): Promise<WireAnswer> {
    const { authenticator } = this.#options;
    const { scopes, call, body, proof = "challenge" } = this.#request;
    if (proof === "none") return await this.#send();
    this.#authorization =
      proof === "credential" ? authenticator.present(this.#base) : await authenticator.prepare(this.#base, scopes, call.signal);
    const answer = await this.#send(this.#authorization?.header);
    if (answer.status !== 401) {
      if (answer.status < 400) authenticator.accepted(this.#base);
      return answer;
    }
    const challenges = all(answer.headers["www-authenticate"]);
    const used = this.#authorization;
    if (proof === "credential") {
      if (used) authenticator.refused(this.#base, used);
      return answer;
    }
    const renewed = await authenticator
      .answer(this.#base, { challenges, scopes, used, signal: call.signal })
      .catch(async (error: unknown) => {
        await discard(answer.body);
        throw error;
      });
    if (renewed === null) return answer;
    if (body !== undefined && !Buffer.isBuffer(body)) {
      this.#tokenDropped = true;
      return answer;
    }
    await discard(answer.body);
    this.#authorization = renewed;
    const second = await this.#send(renewed.header);
    if (second.status === 401) {
      // There is no third try: with the same password it would be the way into a lock-out.
      authenticator.refused(this.#base, renewed);
    } else if (second.status < 400) authenticator.accepted(this.#base);
    return second;
  }

  async #send(authorization?: string): Promise<WireAnswer> {
    const { connections, timeouts, tls, counters } = this.#options;
    const request = this.#request;
    const answer = await connections.send({
      url: this.#hop.url,
      method: this.#hop.method,
      headers: authorization === undefined ? this.#hop.headers : { ...this.#hop.headers, authorization },
      body: request.body,
      isBulk: request.lane === "bulk",
      bulkToFollow: this.atBase ? request.call.blobsToFollow : undefined,
      reach: this.#reach,
      // Leniency about certificates is for what the operator named and what is beside it.
      tls: { ca: tls.ca, insecure: tls.insecure && this.#reach === "operator" },
      firstByteMs: request.firstByteMs ?? timeouts.firstByteMs,
      idleBodyMs: timeouts.idleBodyMs,
      signal: request.call.signal,
    });
    counters.call(this.atBase ? this.#base.host : "other", request.kind, answer.status);
    return answer;
  }

  #result(wire: WireAnswer): TripResult {
    const { headers, status, body } = wire;
    return {
      answer: {
        status,
        body,
        url: this.#hop.url,
        origin: this.#base.origin,
        header: (name) => first(headers[name]),
        headerAll: (name) => all(headers[name]),
      },
      atBase: this.atBase,
      credentialRefused: status === 401 && (this.#authorization?.header.startsWith("Basic ") ?? false),
      tokenDropped: this.#tokenDropped,
    };
  }
}

function first(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}

function all(value: string | string[] | undefined): string[] {
  return value === undefined ? [] : Array.isArray(value) ? value : [value];
}
