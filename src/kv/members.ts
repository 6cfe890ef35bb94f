/** The live processes of a deployment: each writes that it lives every two seconds, and is dead to the others six seconds after it stopped. */
import type { Logger } from "../telemetry/logger.ts";
import type { Kv } from "./kv.ts";

export interface Member {
  /** New at every start. */
  readonly bootId: string;
  readonly host: string;
  /** Where other processes reach it, http://host:port; null when nowhere. */
  readonly address: string | null;
  readonly roles: readonly string[];
}

const HEARTBEAT_MS = 2_000;
export const DEAD_AFTER_MS = 6_000;
const PREFIX = "member:";
const MAX_MEMBERS = 1_000;

export class Members {
  readonly self: Member;
  readonly #kv: Kv;
  readonly #logger: Logger | null;
  readonly #timer: NodeJS.Timeout;
  #known: readonly Member[] = [];

  private constructor(kv: Kv, self: Member, logger: Logger | null) {
    this.#kv = kv;
    this.self = self;
    this.#logger = logger;
    this.#timer = setInterval(() => void this.#beat(), HEARTBEAT_MS);
    this.#timer.unref();
  }

  static async join(kv: Kv, self: Member, logger: Logger | null = null): Promise<Members> {
    const members = new Members(kv, self, logger);
    await members.#beat();
    return members;
  }

  /** As of the last heartbeat; others may have come or gone within two seconds. */
  get known(): readonly Member[] {
    return this.#known;
  }

  /** Asked anew. */
  async list(): Promise<readonly Member[]> {
    const entries = await this.#kv.listPrefix(PREFIX, MAX_MEMBERS);
    this.#known = entries.map(({ value }) => JSON.parse(value) as Member);
    return this.#known;
  }

  async leave(): Promise<void> {
    clearInterval(this.#timer);
    await this.#kv.remove(`${PREFIX}${this.self.bootId}`).catch(() => undefined);
  }

  async #beat(): Promise<void> {
    try {
      await this.#kv.set(`${PREFIX}${this.self.bootId}`, JSON.stringify(this.self), { ttlMs: DEAD_AFTER_MS });
      await this.list();
    } catch (error) {
      this.#logger?.warn({ error }, "this process could not say that it lives");
    }
  }
}
