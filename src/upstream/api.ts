/**
 * Calls to the API that a product has beside the registry protocol, by the same rules as everything else: host gate, redirects, retries, and a
 * credential that only its own origin sees. What comes back is read as JSON within a bound.
 */
import { SlipwayError } from "../core/errors.ts";
import type { Authenticator } from "./authenticator.ts";
import type { ResolvedEndpoint } from "./endpoint.ts";
import type { Exchange } from "./exchange.ts";
import { parseNextLink } from "./link-header.ts";
import type { ApiAnswer, ApiCall, CallOptions } from "./types.ts";

export interface ApiCallerOptions {
  readonly exchange: Exchange;
  readonly authenticator: Pick<Authenticator, "realmOf">;
  readonly resolved: ResolvedEndpoint;
}

const MAX_API_BYTES = 16 * 1024 * 1024;
const MAX_PING_BYTES = 64 * 1024;

export class ApiCaller {
  readonly #options: ApiCallerOptions;

  constructor(options: ApiCallerOptions) {
    this.#options = options;
  }

  async call(call: ApiCall): Promise<ApiAnswer> {
    const { method, path, body, pass, anonymous } = call;
    if (!/^\/(?!\/)/.test(path) || /(^|\/)\.\.?(\/|$|\?)/.test(path))
      throw new SlipwayError("BAD_REQUEST", { message: "not a path of an API" });
    const answer = await this.#options.exchange.collect(
      {
        kind: "api",
        method,
        target: { path },
        scopes: [],
        lane: "meta",
        absent: "NOT_FOUND",
        call,
        headers: { accept: "application/json", ...(body === undefined ? {} : { "content-type": "application/json" }) },
        body: body === undefined ? undefined : Buffer.from(JSON.stringify(body)),
        pass,
        proof: anonymous === true ? "none" : "credential",
        repeatable: method !== "POST",
      },
      MAX_API_BYTES,
    );
    return {
      status: answer.status,
      json: parseJson(answer.bytes),
      next: parseNextLink(answer.headerAll("link")),
      header: (name) => answer.header(name),
    };
  }

  /** Origin of the token service that the registry names: with products whose API lives there, and which sees the credential anyway. */
  async tokenOrigin(call: CallOptions): Promise<string | null> {
    const answer = await this.#options.exchange.collect(
      {
        kind: "ping",
        method: "GET",
        target: { path: "/v2/" },
        scopes: [],
        lane: "meta",
        absent: "NOT_FOUND",
        call,
        pass: [401],
        proof: "none",
        repeatable: true,
      },
      MAX_PING_BYTES,
    );
    const base = this.#options.resolved.bases.find((each) => each.origin === answer.origin);
    if (answer.status !== 401 || !base) return null;
    return (await this.#options.authenticator.realmOf(base, answer.headerAll("www-authenticate")))?.origin ?? null;
  }
}

function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString("utf8"));
  } catch {
    return null;
  }
}
