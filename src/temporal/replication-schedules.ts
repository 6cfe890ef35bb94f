/**
 * The Temporal schedules of replication policies: one for each scheduled policy, paused while it is disabled. A schedule starts a small workflow
 * that asks for the run by the same road as people do. The rows of the policies are what counts: whatever happened to a schedule, here or there,
 * reconciling makes it agree again and counts what it had to mend.
 */
import { ScheduleOverlapPolicy } from "@temporalio/client";
import type { Client, ScheduleDescription } from "@temporalio/client";
import { isSlipwayError, toSlipwayError } from "../core/errors.ts";
import type { Policy } from "../replication/plan/policy.ts";
import { canonicalTimezone } from "../replication/policy-cron.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { MetricFamily } from "../telemetry/metrics.ts";
import type { CallOptions, TemporalConnection } from "./connection.ts";
import { parseCron } from "./cron.ts";
import { scheduleIds, workflowIds } from "./ids.ts";
import { taskQueues } from "./queues.ts";
import { isSameSchedule } from "./schedule-spec.ts";
import { didNotFire, isStuck } from "./schedule-ticks.ts";

export interface ReplicationSchedulesOptions {
  readonly temporal: TemporalConnection;
  /** The rows, read again before anything is changed: lists grow old while they are worked through. */
  readonly policies: { find(id: number): Promise<Policy | null> };
  readonly logger: Logger;
  readonly now?: () => number;
}

export type ScheduleChange = "unchanged" | "created" | "changed" | "removed" | "absent";

export const mendedKinds = ["missing", "extra", "changed", "unfired"] as const;
export type MendedKind = (typeof mendedKinds)[number];

export interface SchedulesReport extends Readonly<Record<MendedKind, number>> {
  readonly checked: number;
  /** Paused by an operator in the service, while the policy is enabled: left alone, and shown. */
  readonly held: number;
  /** Could not be mended; tried again next time. */
  readonly failed: number;
  /** All kinds together. */
  readonly mended: number;
}

/** Ticks that were missed for longer than this are not made up for by the service. */
const CATCH_UP_MS = 10 * 60_000;
const DISABLED = "the policy is disabled";
/** A schedule whose policy changes while it is set is set again. */
const FOLLOW_ATTEMPTS = 4;
const FOLLOW_TIMEOUT_MS = 3_000;
const LIST_TIMEOUT_MS = 60_000;
const AT_ONCE = 4;
const PREFIX = scheduleIds.replication(0).slice(0, -1);

type Counts = Record<MendedKind | "checked" | "held" | "failed", number>;

export class ReplicationSchedules {
  readonly #options: ReplicationSchedulesOptions;
  readonly #mended: Record<MendedKind, number> = { missing: 0, extra: 0, changed: 0, unfired: 0 };
  #last: SchedulesReport | null = null;

  constructor(options: ReplicationSchedulesOptions) {
    this.#options = options;
  }

  /** Makes the schedule of a policy agree with its row, also when others change it in the same moment. */
  async follow(policyId: number, options: CallOptions = { timeoutMs: FOLLOW_TIMEOUT_MS }): Promise<ScheduleChange> {
    let policy = await this.#options.policies.find(policyId);
    for (let attempt = 1; ; attempt += 1) {
      const change = policy === null ? await this.remove(policyId, options) : await this.apply(policy, options);
      const after = await this.#options.policies.find(policyId);
      if (attempt === FOLLOW_ATTEMPTS || after?.updatedAt.getTime() === policy?.updatedAt.getTime()) return change;
      policy = after;
    }
  }

  async apply(policy: Policy, options: CallOptions = {}): Promise<ScheduleChange> {
    const wanted = definitionOf(policy);
    if (wanted === null) return await this.remove(policy.id, options);
    const { temporal } = this.#options;
    const scheduleId = scheduleIds.replication(policy.id);
    const existing = await this.#describe(policy.id, options);
    if (existing !== null && isAsWanted(existing, policy)) return "unchanged";
    if (existing === null) {
      const created = temporal.call((client) => client.schedule.create({ ...wanted, scheduleId }), options);
      const made = await created.then(() => true).catch(ignoring("CONFLICT"));
      if (made !== null) return "created";
    }
    const state = { ...wanted.state, paused: wanted.state.paused || (existing !== null && isHeld(existing)) };
    const note = existing !== null && isHeld(existing) && policy.enabled ? existing.state.note : wanted.state.note;
    await temporal.call(
      (client) =>
        client.schedule.getHandle(scheduleId).update(() => ({ ...wanted, state: { ...state, ...(note === undefined ? {} : { note }) } })),
      options,
    );
    return "changed";
  }

  async remove(policyId: number, options: CallOptions = {}): Promise<ScheduleChange> {
    const removed = this.#options.temporal.call((client) => client.schedule.getHandle(scheduleIds.replication(policyId)).delete(), options);
    return (await removed.then(() => true).catch(ignoring("NOT_FOUND"))) === null ? "absent" : "removed";
  }

  /** `policies` are all that have a schedule. Throws only when the service is away. */
  async reconcile(policies: readonly Policy[], signal?: AbortSignal): Promise<SchedulesReport> {
    const counts: Counts = { checked: 0, held: 0, failed: 0, missing: 0, extra: 0, changed: 0, unfired: 0 };
    const options: CallOptions = signal === undefined ? {} : { signal };
    await this.#options.temporal.check(options);
    const wanted = new Set(policies.map(({ id }) => id));
    const extra = (await this.#list(options)).filter((id) => !wanted.has(id));
    const work = [
      ...extra.map((id) => (): Promise<void> => this.#mendExtra(id, counts, options)),
      ...policies.map((policy) => (): Promise<void> => this.#check(policy, counts, options)),
    ].values();
    const worker = async (): Promise<void> => {
      for (const step of work) {
        signal?.throwIfAborted();
        await this.#tryStep(step, counts, signal);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    const mended = mendedKinds.reduce((sum, kind) => sum + counts[kind], 0);
    this.#last = { ...counts, mended };
    return this.#last;
  }

  /** Of processes that reconcile. */
  families(): MetricFamily[] {
    if (this.#last === null) return [];
    const { checked, held, failed } = this.#last;
    const states = { checked, held, failed };
    return [
      {
        name: "slipway_replication_schedules",
        help: "Schedules of policies as the last reconciliation of this process found them: checked, held by an operator, failed to mend.",
        type: "gauge",
        samples: Object.entries(states).map(([state, value]) => ({ value, labels: { state } })),
      },
      {
        name: "slipway_replication_schedules_mended_total",
        help: "Schedules of policies that had to be mended: missing, extra, changed, or due without having fired.",
        type: "counter",
        samples: mendedKinds.map((kind) => ({ value: this.#mended[kind], labels: { kind } })),
      },
    ];
  }

  async #tryStep(step: () => Promise<void>, counts: Counts, signal: AbortSignal | undefined): Promise<void> {
    try {
      await step();
    } catch (error) {
      signal?.throwIfAborted();
      if (isSlipwayError(error, "TEMPORAL_UNAVAILABLE")) throw error;
      counts.failed += 1;
      this.#options.logger.warn({ error: toSlipwayError(error) }, "the schedule of a policy could not be mended");
    }
  }

  async #check(policy: Policy, counts: Counts, options: CallOptions): Promise<void> {
    counts.checked += 1;
    const existing = await this.#describe(policy.id, options);
    if (existing === null) {
      if ((await this.follow(policy.id, options)) === "created") this.#note("missing", policy.id, counts);
    } else if (!isAsWanted(existing, policy)) {
      if ((await this.follow(policy.id, options)) === "changed") this.#note("changed", policy.id, counts);
    } else if (existing.state.paused) {
      if (policy.enabled) counts.held += 1;
    } else if (await didNotFire({ ...this.#options, description: existing, options })) {
      await this.#mendUnfired(policy, existing, options);
      this.#note("unfired", policy.id, counts);
    }
  }

  async #mendExtra(id: number, counts: Counts, options: CallOptions): Promise<void> {
    if ((await this.follow(id, options)) === "removed") this.#note("extra", id, counts);
  }

  /** One run makes up for whatever was missed; a schedule that has stopped going is made anew. */
  async #mendUnfired(policy: Policy, existing: ScheduleDescription, options: CallOptions): Promise<void> {
    if (isStuck(existing, this.#now())) {
      await this.remove(policy.id, options);
      await this.apply(policy, options);
    }
    await this.#options.temporal.call(
      (client) => client.schedule.getHandle(scheduleIds.replication(policy.id)).trigger(ScheduleOverlapPolicy.SKIP),
      options,
    );
  }

  #note(kind: MendedKind, policyId: number, counts: Counts): void {
    counts[kind] += 1;
    this.#mended[kind] += 1;
    this.#options.logger.warn({ policy: policyId, kind }, "the schedule of a policy was mended");
  }

  async #describe(policyId: number, options: CallOptions): Promise<ScheduleDescription | null> {
    const description = this.#options.temporal.call(
      (client) => client.schedule.getHandle(scheduleIds.replication(policyId)).describe(),
      options,
    );
    return await description.catch(ignoring("NOT_FOUND"));
  }

  /** The policies that have a schedule in the service, by id. */
  async #list(options: CallOptions): Promise<number[]> {
    return await this.#options.temporal.call(
      async (client) => {
        const ids: number[] = [];
        for await (const { scheduleId } of client.schedule.list({ pageSize: 500 })) {
          const id = scheduleId.startsWith(PREFIX) ? scheduleId.slice(PREFIX.length) : "";
          if (/^[1-9]\d{0,14}$/.test(id)) ids.push(Number(id));
        }
        return ids;
      },
      { timeoutMs: LIST_TIMEOUT_MS, ...options },
    );
  }

  #now(): number {
    return this.#options.now?.() ?? Date.now();
  }
}

type Definition = Omit<Parameters<Client["schedule"]["create"]>[0], "scheduleId">;

/** Null for a policy without a schedule. */
function definitionOf({ id, name, enabled, trigger }: Policy) {
  if (trigger?.type !== "scheduled") return null;
  return {
    spec: { calendars: parseCron(trigger.cron), timezone: canonicalTimezone(trigger.timezone) ?? "UTC" },
    policies: { overlap: ScheduleOverlapPolicy.SKIP, catchupWindow: CATCH_UP_MS },
    action: {
      type: "startWorkflow",
      workflowType: "replicationTrigger",
      workflowId: workflowIds.scheduleTick(scheduleIds.replication(id)),
      taskQueue: taskQueues.replication,
      args: [{ policyId: id, trigger: "scheduled" }],
      // It waits for a worker; of the ticks until then, one is enough.
      workflowRunTimeout: "3d",
      staticSummary: `Starts replication ${name}`.slice(0, 200),
    },
    state: enabled ? { paused: false } : { paused: true, note: DISABLED },
  } satisfies Definition;
}

function isAsWanted(existing: ScheduleDescription, policy: Policy): boolean {
  const wanted = definitionOf(policy);
  if (wanted === null || !isSameSchedule(existing, wanted)) return false;
  return existing.state.paused === wanted.state.paused || isHeld(existing);
}

/** Paused, and not by us. */
function isHeld({ state }: ScheduleDescription): boolean {
  return state.paused && state.note !== DISABLED;
}

function ignoring(code: "NOT_FOUND" | "CONFLICT"): (error: unknown) => null {
  return (error) => {
    if (isSlipwayError(error, code)) return null;
    throw error;
  };
}
