/** What copying needs from the rest of the program. */
import type { Encryption } from "../../auth/encryption.ts";
import type { Database } from "../../db/pool.ts";
import type { Kv } from "../../kv/kv.ts";
import type { Logger } from "../../telemetry/logger.ts";
import type { AdapterFactory } from "../adapters/adapter.ts";
import type { Policy } from "../plan/policy.ts";
import type { BytesTuning } from "./blob-bytes.ts";
import type { UploadTuning } from "./upload.ts";

export interface CopierOptions {
  readonly database: Database;
  readonly kv: Pick<Kv, "increment" | "publish">;
  readonly encryption: Encryption;
  readonly adapters: AdapterFactory;
  readonly policies: { find(id: number): Promise<Policy | null> };
  readonly logger: Logger;
  /** Names this process; its claims are held under it. */
  readonly bootId: string;
  /** Where blobs are kept that several destinations read; the data folder's staging. */
  readonly stagingFolder: string;
  /** Batches that this worker runs at once: no target gets more than half of them. */
  readonly slots: number;
  /** Blobs that are under way to one target host at once. */
  readonly maxRequestsPerHost: number;
  /** Live workers, who share a policy's speed while the key-value service is away. */
  readonly workers?: () => number;
  readonly tuning?: Partial<BytesTuning & UploadTuning>;
}
