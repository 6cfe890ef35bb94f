/** What all batches of a process share: stores, claims, lanes, and what was learnt about registries. */
import { LRUCache } from "lru-cache";
import { ExecutionStore } from "../../execution/execution-store.ts";
import { LogStore } from "../../execution/log-store.ts";
import { TaskStore } from "../../execution/task-store.ts";
import type { PrepareResult, RegistryAdapter } from "../adapters/adapter.ts";
import { ItemStore } from "../item-store.ts";
import { KnownStore } from "../known-store.ts";
import { RunStore } from "../run-store.ts";
import { BYTES_TUNING, LargeReads } from "./blob-bytes.ts";
import type { BytesTuning } from "./blob-bytes.ts";
import { ContentStore } from "./content-store.ts";
import { Governor } from "./governor.ts";
import { Lanes, Shares } from "./lanes.ts";
import { Ledger } from "./ledger.ts";
import type { CopierOptions } from "./open-copier.ts";
import { ReferrerFinder } from "./referrer-finder.ts";
import { Chunkless, UPLOAD_TUNING } from "./upload.ts";
import type { UploadTuning } from "./upload.ts";
import { UploadStore } from "./upload-store.ts";

const MAX_PREPARED = 10_000;
const MAX_GOVERNORS = 1_000;
const SPEED_MS = 900;

export class CopyServices {
  readonly options: CopierOptions;
  readonly tuning: BytesTuning & UploadTuning;
  readonly items: ItemStore;
  readonly runs: RunStore;
  readonly executions: ExecutionStore;
  readonly tasks: TaskStore;
  readonly logs: LogStore;
  readonly known: KnownStore;
  readonly content: ContentStore;
  readonly uploads: UploadStore;
  readonly ledger: Ledger;
  readonly lanes: Lanes;
  readonly shares: Shares;
  readonly counters = { copied: 0, mounted: 0, skipped: 0, bytes: 0, busy: 0 };
  readonly reads = new LargeReads();
  readonly finder = new ReferrerFinder();
  readonly chunkless = new Chunkless();
  readonly #prepared = new LRUCache<string, Promise<PrepareResult>>({ max: MAX_PREPARED });
  readonly #watched = new LRUCache<number, true>({ max: MAX_GOVERNORS, ttl: SPEED_MS });
  readonly #governors = new LRUCache<string, Governor>({ max: MAX_GOVERNORS });

  constructor(options: CopierOptions) {
    const { database, encryption, bootId, logger } = options;
    this.options = options;
    this.tuning = { ...BYTES_TUNING, ...UPLOAD_TUNING, ...options.tuning };
    this.items = new ItemStore(database);
    this.runs = new RunStore(database);
    this.executions = new ExecutionStore(database);
    this.tasks = new TaskStore(database);
    this.logs = new LogStore(database);
    this.known = new KnownStore(database);
    this.content = new ContentStore(database, bootId);
    this.uploads = new UploadStore(database, encryption);
    this.ledger = new Ledger(this.content, logger);
    this.lanes = new Lanes(options.maxRequestsPerHost);
    this.shares = new Shares(options.slots);
  }

  governor(policyId: number): Governor {
    const key = String(policyId);
    let governor = this.#governors.get(key);
    if (!governor) {
      governor = new Governor({ kv: this.options.kv, key, workers: this.options.workers ?? (() => 1) });
      this.#governors.set(key, governor);
    }
    return governor;
  }

  /** Takes over a new speed of the run or its policy; looked for once a second for all batches of a run. */
  async watchSpeed(executionId: number, governor: Governor): Promise<void> {
    if (this.#watched.has(executionId)) return;
    this.#watched.set(executionId, true);
    governor.setSpeed(await this.runs.speedOf(executionId));
  }

  /** Once per repository and run. */
  prepare(
    executionId: number,
    target: RegistryAdapter,
    prepare: { repository: string; run: () => Promise<PrepareResult> },
  ): Promise<PrepareResult> {
    const key = `${executionId} ${target.registryId} ${prepare.repository}`;
    let prepared = this.#prepared.get(key);
    if (!prepared) {
      prepared = prepare.run();
      this.#prepared.set(key, prepared);
      prepared.catch(() => this.#prepared.delete(key));
    }
    return prepared;
  }
}
