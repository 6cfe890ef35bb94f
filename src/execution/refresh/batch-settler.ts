/**
 * One batch, one statement. When the statement fails because of an execution in it, the batch is halved until that one is found; when it fails because
 * of the database, nothing more is tried.
 */
import { sqlState } from "../../db/pool.ts";
import type { Logger } from "../../telemetry/logger.ts";
import type { Marked } from "../plan/slots.ts";
import type { RefreshStore } from "./refresh-store.ts";

export interface BatchSettlerOptions {
  readonly store: Pick<RefreshStore, "settle" | "noteFailures" | "clearFailures">;
  readonly logger: Logger;
  /** Failures after which an execution is set aside. */
  readonly attempts: number;
}

export interface BatchOutcome {
  readonly done: readonly number[];
  readonly changed: readonly Marked[];
  /** Failed by themselves. */
  readonly failed: readonly number[];
  /** Of these, those that are not tried again. */
  readonly setAside: readonly number[];
  /** Not reached, because the database failed or too much did. */
  readonly left: readonly number[];
  /** What was wrong with the database; null when nothing was. */
  readonly trouble: unknown;
  readonly statements: number;
}

/** Statements of one batch; halving a thousand down to one poisonous execution takes twenty. */
const MAX_STATEMENTS = 100;

/** Classes of SQLSTATE that a row is to blame for: its data, its constraints, and what triggers raise. */
const ROW_CLASSES = new Set(["22", "23", "P0"]);

interface Work {
  readonly done: number[];
  readonly changed: Marked[];
  readonly failed: { readonly id: number; readonly error: unknown }[];
  readonly left: number[];
  trouble: unknown;
  statements: number;
}

export class BatchSettler {
  readonly #options: BatchSettlerOptions;
  /** Failed once: a success is worth a statement that says so. */
  readonly #failing = new Set<number>();

  constructor(options: BatchSettlerOptions) {
    this.#options = options;
  }

  async settle(ids: readonly number[]): Promise<BatchOutcome> {
    const work: Work = { done: [], changed: [], failed: [], left: [], trouble: null, statements: 0 };
    await this.#try(ids, work);
    const setAside = await this.#book(work);
    return { ...work, failed: work.failed.map(({ id }) => id), setAside };
  }

  async #try(ids: readonly number[], work: Work): Promise<void> {
    if (work.trouble !== null || work.statements >= MAX_STATEMENTS) {
      work.left.push(...ids);
      return;
    }
    work.statements += 1;
    try {
      work.changed.push(...(await this.#options.store.settle(ids)));
      work.done.push(...ids);
    } catch (error) {
      if (!ROW_CLASSES.has(sqlState(error)?.slice(0, 2) ?? "")) {
        work.trouble = error;
        work.left.push(...ids);
      } else if (ids.length === 1) {
        work.failed.push(...ids.map((id) => ({ id, error })));
      } else {
        const half = Math.ceil(ids.length / 2);
        await this.#try(ids.slice(0, half), work);
        await this.#try(ids.slice(half), work);
      }
    }
  }

  /** Failures are counted in the database, so that they add up whoever tries. */
  async #book(work: Work): Promise<number[]> {
    const { store, logger, attempts } = this.#options;
    const setAside: number[] = [];
    try {
      for (const { id, error } of work.failed) {
        this.#failing.add(id);
        const message = error instanceof Error ? error.message : String(error);
        logger.warn({ execution: id, error }, "the status of an execution could not be refreshed");
        setAside.push(...(await store.noteFailures([id], message, attempts)));
      }
      for (const id of setAside) {
        this.#failing.delete(id);
        logger.error({ execution: id, attempts }, "an execution is set aside: its refresh failed too often");
      }
      const mended = this.#failing.size === 0 ? [] : work.done.filter((id) => this.#failing.delete(id));
      if (mended.length > 0) await store.clearFailures(mended);
    } catch (error) {
      work.trouble ??= error;
    }
    return setAside;
  }
}
