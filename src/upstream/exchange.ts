/**
 * The one way to a registry: addresses in order, host gate, authorization, redirects, retries within budgets, classification. Whoever
 * needs something from a registry says what in an UpstreamRequest.
 */
import { backoffDelay } from "../core/backoff.ts";
import { sleep } from "../core/clock.ts";
import type { Clock } from "../core/clock.ts";
import { SlipwayError } from "../core/errors.ts";
import { discard, readBounded } from "./body.ts";
import type { Counters } from "./counters.ts";
import { meansAbsent, urlUnder } from "./endpoint.ts";
import type { ResolvedEndpoint } from "./endpoint.ts";
import { mayFailOver, readErrorCode, statusError, transportFailure } from "./failure.ts";
import type { HostGate } from "./host-gate.ts";
import type { Slot, SlotOutcome } from "./host-queue.ts";
import type { CollectedAnswer, UpstreamAnswer, UpstreamRequest } from "./request.ts";
import { TokenRefused } from "./token-request.ts";
import { Trip } from "./trip.ts";
import type { TripOptions, TripResult } from "./trip.ts";
import type { Priority } from "./types.ts";

export interface ExchangeOptions extends TripOptions {
  readonly resolved: ResolvedEndpoint;
  readonly gateFor: (base: URL) => HostGate;
  readonly counters: Counters;
  readonly clock: Clock;
  readonly attempts?: number | undefined;
}

interface Candidate {
  readonly base: URL;
  readonly url: URL;
}

interface Attempt extends Candidate {
  readonly request: UpstreamRequest;
  readonly waitMs: number;
}

/** How long a call may wait for its turn or for a block to end. */
export const DEFAULT_WAIT_MS: Readonly<Record<Priority, number>> = {
  interactive: 5000,
  revalidation: 2000,
  replication: 120_000,
  prefetch: 30_000,
};

/** Of that, how long it may sit out a Retry-After. Where somebody waits, knowing when to come again, or getting the copy that is there, is worth more than a slow answer. */
const DEFAULT_BLOCK_WAIT_MS: Readonly<Partial<Record<Priority, number>>> = { interactive: 1000, revalidation: 0 };

const RETRY_BACKOFF = { baseMs: 100, capMs: 2000 };

/** Whether another attempt at the same address makes sense: after a pause of our own, or as soon as the gate lets it through, which knows what the host asked for. */
type Again = "no" | "after-pause" | "when-let-in";

class AttemptFailed extends Error {
  override readonly name = "AttemptFailed";
  readonly error: SlipwayError;
  readonly again: Again;

  constructor(error: SlipwayError, again: Again) {
    super(error.message);
    this.error = error;
    this.again = again;
  }
}

export class Exchange {
  readonly #options: ExchangeOptions;

  constructor(options: ExchangeOptions) {
    this.#options = options;
  }

  /** Reads the whole body, which must be small. */
  collect(request: UpstreamRequest, maxBytes: number): Promise<CollectedAnswer> {
    return this.#run(request, async (answer, slot, outcome) => {
      const bytes = await readBounded(answer.body, maxBytes);
      slot.release(outcome);
      const { body: _, ...rest } = answer;
      return { ...rest, bytes };
    });
  }

  /** The body keeps the call's slot until it is read to its end or destroyed. */
  open(request: UpstreamRequest): Promise<UpstreamAnswer> {
    return this.#run(request, (answer, slot, outcome) => {
      if (outcome === "ok") slot.wentWell();
      answer.body.once("close", () => slot.release(outcome === "ok" ? "neutral" : outcome));
      return Promise.resolve(answer);
    });
  }

  async #run<T>(request: UpstreamRequest, consume: Consume<T>): Promise<T> {
    const candidates = this.#candidates(request);
    const last = candidates.at(-1);
    for (const candidate of candidates) {
      try {
        return await this.#insist(request, candidate, consume);
      } catch (error) {
        const streamed = request.body !== undefined && !Buffer.isBuffer(request.body);
        if (!(error instanceof SlipwayError) || !mayFailOver(error) || candidate === last || streamed) throw error;
        this.#options.counters.failovers += 1;
      }
    }
    throw new SlipwayError("INTERNAL");
  }

  #candidates(request: UpstreamRequest): Candidate[] {
    const { bases } = this.#options.resolved;
    const { target } = request;
    const order = request.call.elsewhere ? [...bases.slice(1), ...bases.slice(0, 1)] : bases;
    if ("path" in target) return order.map((base) => ({ base, url: urlUnder(base, target.path) }));
    const url = new URL(target.url);
    const base = bases.find((each) => each.origin === url.origin) ?? bases[0];
    return base ? [{ base, url }] : [];
  }

  async #insist<T>(request: UpstreamRequest, candidate: Candidate, consume: Consume<T>): Promise<T> {
    const { clock, counters } = this.#options;
    const priority = request.call.priority ?? "interactive";
    // There is a copy to serve: one more attempt is for a connection that had gone stale, not for a registry that needs time.
    const isBrief = priority === "revalidation";
    const attempts = request.repeatable ? Math.min(this.#options.attempts ?? 3, isBrief ? 2 : Number.POSITIVE_INFINITY) : 1;
    const patience = request.call.waitMs ?? DEFAULT_WAIT_MS[priority];
    const until = clock.now() + patience;
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#attempt({ ...candidate, request, waitMs: Math.max(0, until - clock.now()) }, consume);
      } catch (failed) {
        if (!(failed instanceof AttemptFailed)) throw failed;
        const again = failed.again !== "no" && attempt < attempts && this.#options.gateFor(candidate.base).retries.take();
        if (!again) throw failed.error;
        counters.retries += 1;
        if (failed.again === "when-let-in" || isBrief) continue;
        await sleep(backoffDelay(attempt, RETRY_BACKOFF), request.call.signal).catch((cause: unknown) => {
          throw new SlipwayError("CANCELLED", { cause });
        });
      }
    }
  }

  async #attempt<T>(attempt: Attempt, consume: Consume<T>): Promise<T> {
    const { request, base } = attempt;
    const gate = this.#options.gateFor(base);
    const priority = request.call.priority ?? "interactive";
    const slot = await gate.enter({
      lane: request.lane,
      priority,
      waitMs: attempt.waitMs,
      blockWaitMs: request.call.blockWaitMs ?? DEFAULT_BLOCK_WAIT_MS[priority],
      counted: request.counted ?? false,
      signal: request.call.signal,
    });
    const trip = new Trip(this.#options, attempt);
    try {
      const result = await trip.run();
      const verdict = result.atBase
        ? gate.answered(result.answer.status, request.counted ?? false, result.answer.header)
        : { outcome: "ok" as const, retryAfterMs: null };
      if (result.answer.status < 400 || request.pass?.includes(result.answer.status)) {
        return await consume(result.answer, slot, verdict.outcome);
      }
      throw await this.#refusal(attempt, result, verdict.retryAfterMs, () => slot.release(verdict.outcome));
    } catch (error) {
      if (error instanceof AttemptFailed) throw error;
      throw this.#failure(attempt, trip, gate, { error, slot });
    }
  }

  async #refusal(attempt: Attempt, result: TripResult, retryAfterMs: number | null, release: () => void): Promise<AttemptFailed> {
    const { answer, atBase } = result;
    const body = await discard(answer.body);
    release();
    const { status } = answer;
    const { endpoint } = this.#options.resolved;
    if (!atBase && (status === 400 || status === 401 || status === 403)) {
      // Most likely a signed address that ran out; the registry gives a new one.
      const detail = { host: answer.url.host, status, part: "redirect" };
      return new AttemptFailed(new SlipwayError("UPSTREAM_UNAVAILABLE", { detail }), "after-pause");
    }
    if (result.tokenDropped) {
      const detail = { host: attempt.base.host, status, part: "token" };
      return new AttemptFailed(new SlipwayError("UPSTREAM_UNAVAILABLE", { detail, retryAfterSeconds: 1 }), "no");
    }
    const error = statusError(attempt.request, {
      status,
      host: answer.url.host,
      upstreamCode: readErrorCode(body),
      retryAfterMs,
      absentOrDenied: atBase && !result.credentialRefused && meansAbsent(endpoint, attempt.base.host, status),
    });
    const overloaded = status === 429 || (status === 503 && retryAfterMs !== null);
    if (overloaded && atBase) return new AttemptFailed(error, "when-let-in");
    return new AttemptFailed(error, overloaded || [408, 500, 502, 503, 504].includes(status) ? "after-pause" : "no");
  }

  #failure(attempt: Attempt, trip: Trip, gate: HostGate, what: { error: unknown; slot: Slot }): AttemptFailed {
    const { request, base } = attempt;
    const { error, slot } = what;
    if (error instanceof SlipwayError && error.code === "UPSTREAM_REFUSED" && error.cause instanceof TokenRefused) {
      slot.release("neutral");
      // Some token services refuse a scope for a repository that is not there.
      const absent = meansAbsent(this.#options.resolved.endpoint, base.host, error.cause.status);
      return new AttemptFailed(absent ? new SlipwayError(request.absent, { detail: error.detail }) : error, "no");
    }
    const failure = transportFailure(error, trip.host, request.call.signal);
    const counts = failure.verdict !== "ours" && trip.atBase;
    slot.release(counts ? gate.failed(failure) : "neutral");
    if (failure.verdict !== "ours") this.#options.counters.call(trip.atBase ? base.host : "other", request.kind, 0);
    return new AttemptFailed(failure.error, failure.verdict === "cut" || failure.verdict === "unreachable" ? "after-pause" : "no");
  }
}

type Consume<T> = (answer: UpstreamAnswer, slot: Slot, outcome: SlotOutcome) => Promise<T>;
