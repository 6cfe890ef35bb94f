/**
 * Gives a call its Authorization header. What a registry once asked for is remembered, so that later calls bring their token along; a
 * refused token is renewed once, a refused password not at all.
 */
import { LRUCache } from "lru-cache";
import { SlipwayError } from "../core/errors.ts";
import type { Clock } from "../core/clock.ts";
import type { Reach } from "./address-guard.ts";
import { parseChallenges } from "./auth-challenge.ts";
import type { Connections, TlsSettings } from "./connections.ts";
import { basicHeader, credentialFor, credentialKey } from "./credentials.ts";
import type { ResolvedEndpoint } from "./endpoint.ts";
import { Lockout } from "./lockout.ts";
import { resolveNamed } from "./redirects.ts";
import type { TokenCache } from "./token-cache.ts";
import { requestToken, TokenRefused } from "./token-request.ts";
import type { TokenGrant, TokenWireRequest } from "./token-request.ts";
import type { UpstreamCredential } from "./types.ts";

export interface AuthenticatorOptions {
  readonly resolved: ResolvedEndpoint;
  readonly connections: Connections;
  readonly tokens: TokenCache;
  readonly clock: Clock;
  readonly tls: TlsSettings;
  readonly onSecret: (value: string) => void;
  readonly onTokenCall: (status: number) => void;
  readonly tokenMs?: number | undefined;
}

interface TokenRefusalDetail {
  readonly host: string;
  readonly status: number;
  readonly part: "token";
}

interface Demand {
  readonly scheme: "basic" | "bearer";
  readonly realm: string;
  readonly service: string | null;
}

export interface Authorization {
  readonly header: string;
  readonly token: { readonly key: string; readonly value: string } | null;
}

export interface Refusal {
  readonly challenges: readonly string[];
  readonly scopes: readonly string[];
  readonly used: Authorization | null;
  readonly signal?: AbortSignal | undefined;
}

const DEMAND_TTL_MS = 3_600_000;
const TOKEN_DEADLINE_MS = 15_000;

export class Authenticator {
  readonly #options: AuthenticatorOptions;
  readonly #demands = new LRUCache<string, Demand>({ max: 100, ttl: DEMAND_TTL_MS });
  readonly #lockout: Lockout;
  /** A token service may replace the refresh token with each use. */
  #rotated: string | null = null;

  constructor(options: AuthenticatorOptions) {
    this.#options = options;
    this.#lockout = new Lockout(options.clock);
  }

  /** What is known to be wanted at this base, without having been asked. */
  async prepare(base: URL, scopes: readonly string[], signal?: AbortSignal): Promise<Authorization | null> {
    const credential = this.#credential(base.origin);
    if (credential?.type === "bearer") return { header: `Bearer ${credential.token}`, token: null };
    const demand = this.#demands.get(base.origin);
    return demand ? await this.#meet(base, demand, scopes, signal) : null;
  }

  /** The credential itself, unasked. */
  present(base: URL): Authorization | null {
    const credential = this.#credential(base.origin);
    if (credential?.type === "bearer") return { header: `Bearer ${credential.token}`, token: null };
    const pair = basicPair(credential);
    if (!pair) return null;
    this.#lockout.check(this.#lockKey(base.origin));
    return { header: basicHeader(pair.username, pair.password), token: null };
  }

  /** Where the registry sends those who want a token, when it may see the credential; null when it demands no token. */
  async realmOf(base: URL, challenges: readonly string[]): Promise<URL | null> {
    const demand = this.#choose(base, challenges);
    if (demand?.scheme !== "bearer") return null;
    return (await this.#realm(base, demand.realm, this.#credential(base.origin) !== null)).realm;
  }

  /** Answers a 401. Null when there is nothing (else) to answer with. */
  async answer(base: URL, refusal: Refusal): Promise<Authorization | null> {
    const { used, scopes, signal } = refusal;
    if (used) this.refused(base, used);
    if (this.#credential(base.origin)?.type === "bearer") return null;
    const demand = this.#choose(base, refusal.challenges);
    if (!demand || (demand.scheme === "basic" && used?.header.startsWith("Basic "))) return null;
    this.#demands.set(base.origin, demand);
    return await this.#meet(base, demand, scopes, signal);
  }

  /** A refused token is not used again; a refused password not for a while. */
  refused(base: URL, used: Authorization): void {
    if (used.token) this.#options.tokens.drop(used.token.key, used.token.value);
    else if (used.header.startsWith("Basic ")) this.#lockout.refused(this.#lockKey(base.origin));
  }

  /** A call with this header went through. */
  accepted(base: URL): void {
    this.#lockout.accepted(this.#lockKey(base.origin));
  }

  #credential(origin: string): UpstreamCredential | null {
    const { resolved } = this.#options;
    const credential = credentialFor(resolved.endpoint, origin, resolved.credentialOrigins);
    return credential?.type === "identity" && this.#rotated !== null ? { ...credential, token: this.#rotated } : credential;
  }

  #lockKey(place: string): string {
    return `${place} ${credentialKey(this.#options.resolved.endpoint.credential)}`;
  }

  #choose(base: URL, headers: readonly string[]): Demand | null {
    const challenges = parseChallenges(headers);
    const bearer = challenges.find((each) => each.scheme === "bearer" && each.parameters["realm"]);
    if (bearer) return { scheme: "bearer", realm: bearer.parameters["realm"] ?? "", service: bearer.parameters["service"] ?? null };
    const basic = challenges.find((each) => each.scheme === "basic");
    return basic && this.#credential(base.origin) ? { scheme: "basic", realm: "", service: null } : null;
  }

  async #meet(base: URL, demand: Demand, scopes: readonly string[], signal?: AbortSignal): Promise<Authorization | null> {
    const credential = this.#credential(base.origin);
    if (demand.scheme === "basic") {
      const pair = basicPair(credential);
      if (!pair) return null;
      this.#lockout.check(this.#lockKey(base.origin));
      return { header: basicHeader(pair.username, pair.password), token: null };
    }
    // The configured credential, not the rotated one: a rotation must not lose the tokens.
    const who = credentialKey(credential === null ? null : this.#options.resolved.endpoint.credential);
    const key = JSON.stringify([base.origin, who, demand.realm, demand.service, scopes]);
    const value = await this.#options.tokens.get(key, () => this.#fetch(base, demand, scopes), signal);
    return { header: `Bearer ${value}`, token: { key, value } };
  }

  async #fetch(base: URL, demand: Demand, scopes: readonly string[]): Promise<TokenGrant> {
    const credential = this.#credential(base.origin);
    const { realm, reach } = await this.#realm(base, demand.realm, credential !== null);
    const lockKey = this.#lockKey(realm.origin);
    if (credential) this.#lockout.check(lockKey);
    try {
      const grant = await requestToken({
        realm,
        service: demand.service,
        scopes,
        credential,
        now: () => this.#options.clock.now(),
        send: (wire) => this.#send(wire, reach),
      });
      this.#options.onSecret(grant.token);
      this.#lockout.accepted(lockKey);
      if (credential?.type === "identity" && grant.refreshToken) {
        this.#options.onSecret(grant.refreshToken);
        this.#rotated = grant.refreshToken;
      }
      return grant;
    } catch (error) {
      if (!(error instanceof TokenRefused)) throw error;
      if (credential && error.status === 401) this.#lockout.refused(lockKey);
      throw new SlipwayError("UPSTREAM_REFUSED", {
        detail: { host: realm.host, status: error.status, part: "token" } satisfies TokenRefusalDetail,
        // A 401 to a credential is about the credential; everything else may be about the repository.
        cause: credential && error.status === 401 ? undefined : error,
      });
    }
  }

  async #send(wire: TokenWireRequest, reach: Reach) {
    const answer = await this.#options.connections.send({
      ...wire,
      headers: { accept: "application/json", "accept-encoding": "identity", "user-agent": "slipway", ...wire.headers },
      reach,
      tls: this.#options.tls,
      firstByteMs: this.#options.tokenMs ?? TOKEN_DEADLINE_MS,
      idleBodyMs: this.#options.tokenMs ?? TOKEN_DEADLINE_MS,
    });
    this.#options.onTokenCall(answer.status);
    return answer;
  }

  /** https anywhere that the addresses allow; http only beside an http registry, and with a credential only where it goes anyway. */
  async #realm(base: URL, text: string, withCredential: boolean): Promise<{ realm: URL; reach: Reach }> {
    const { resolved, connections } = this.#options;
    const realm = resolveNamed(text, new URL("/v2/", base));
    const named = resolved.origins.has(realm.origin);
    const allowed = resolved.endpoint.tokenRealms?.some((each) => URL.canParse(each) && new URL(each).origin === realm.origin) ?? false;
    if (named || allowed) return { realm, reach: "operator" };
    const inside = (await connections.classOf(base)) === "private";
    if (realm.protocol === "http:" && withCredential && !inside) {
      throw new SlipwayError("UPSTREAM_FORBIDDEN_ADDRESS", { detail: { host: realm.host, part: "token", reason: "INSECURE_REALM" } });
    }
    return { realm, reach: inside ? "operator" : "public" };
  }
}

function basicPair(credential: UpstreamCredential | null): { username: string; password: string } | null {
  if (credential?.type === "basic") return credential;
  if (credential?.type === "identity" && credential.username) return { username: credential.username, password: credential.token };
  return null;
}
