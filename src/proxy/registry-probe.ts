/**
 * Looks at a registry because an operator asks. With connections of its own: what a breaker or a token cache remembers must not answer for the registry,
 * and a mistyped address must not trip the breaker of the pulls.
 */
import { isSlipwayError, SlipwayError, toSlipwayError } from "../core/errors.ts";
import type { UpstreamPool } from "../upstream/pool.ts";
import type { UpstreamEndpoint } from "../upstream/types.ts";

export type ProbeResult = { readonly healthy: true } | { readonly healthy: false; readonly reason: SlipwayError };

export interface RegistryProbeOptions {
  /** Closed after each probe. */
  readonly openPool: () => UpstreamPool;
  readonly timeoutMs?: number;
}

const TIMEOUT_MS = 15_000;

export class RegistryProbe {
  readonly #options: RegistryProbeOptions;

  constructor(options: RegistryProbeOptions) {
    this.#options = options;
  }

  async probe(endpoint: UpstreamEndpoint): Promise<ProbeResult> {
    const pool = this.#options.openPool();
    try {
      const signal = AbortSignal.timeout(this.#options.timeoutMs ?? TIMEOUT_MS);
      await pool.client(endpoint).ping({ signal });
      return { healthy: true };
    } catch (error) {
      if (endpoint.credential === null && asksForCredential(error)) return { healthy: true };
      if (isSlipwayError(error, "CANCELLED")) return { healthy: false, reason: new SlipwayError("UPSTREAM_TIMEOUT", { cause: error }) };
      return { healthy: false, reason: toSlipwayError(error) };
    } finally {
      await pool.close();
    }
  }
}

/** A registry that wants a credential which nobody gave is well; whether its content can be read is another question. */
function asksForCredential(error: unknown): boolean {
  if (!isSlipwayError(error)) return false;
  const { status } = (error.detail ?? {}) as { status?: unknown };
  return error.code === "UPSTREAM_REFUSED" || status === 401 || status === 403;
}

/** For people: what is wrong and where, without anything that the registry itself said. */
export function describeReason(reason: SlipwayError): string {
  const { host, status, reason: code } = (reason.detail ?? {}) as { host?: unknown; status?: unknown; reason?: unknown };
  const parts = [host, status, code].filter((part) => typeof part === "string" || typeof part === "number");
  return parts.length === 0 ? reason.message : `${reason.message} (${parts.join(", ")})`;
}
