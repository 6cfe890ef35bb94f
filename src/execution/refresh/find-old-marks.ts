/** Where marks of earlier designs may be: in a Redis, if there is one. The connection is made when it is needed. */
import type { Settings } from "../../config/schema.ts";
import type { Kv } from "../../kv/kv.ts";
import type { Logger } from "../../telemetry/logger.ts";
import type { RefreshOptions } from "./open-refresh.ts";

export interface OldMarksPlace {
  readonly settings: Pick<Settings, "refresh" | "redis">;
  readonly kv: Pick<Kv, "acquireLease">;
  readonly logger: Logger;
  /** Of the lease: this process. */
  readonly owner: string;
}

export function findOldMarks({ settings, kv, logger, owner }: OldMarksPlace): NonNullable<RefreshOptions["oldMarks"]> | null {
  const { old_marks: mode, old_redis_url: given } = settings.refresh;
  const url = given ?? settings.redis.url;
  if (url === null || mode === "off") return null;
  const onError = (error: unknown): void => logger.debug({ error }, "the connection to the old marks failed");
  return {
    mode,
    open: async () => (await import("../../kv/old-redis.ts")).OldRedis.open(url, onError),
    acquireLease: (ttlMs) => kv.acquireLease("old-marks", owner, ttlMs),
  };
}
