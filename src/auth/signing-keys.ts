/**
 * The keys that sign access tokens: in Postgres, encrypted, the same for every process. A successor is published well before it signs, and
 * a key verifies until the last token that it signed has expired, so that no process ever meets a token whose key it cannot know.
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync, randomBytes } from "node:crypto";
import type { KeyObject } from "node:crypto";
import type { Clock } from "../core/clock.ts";
import { isSlipwayError, SlipwayError } from "../core/errors.ts";
import { sqlState, UNIQUE_VIOLATION } from "../db/pool.ts";
import type { Database } from "../db/pool.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { Encryption } from "./encryption.ts";

export interface SigningKey {
  readonly kid: string;
  readonly generation: number;
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
  readonly notBefore: number;
  readonly retireAt: number | null;
}

export interface SigningKeysOptions {
  readonly database: Database;
  readonly encryption: Encryption;
  readonly clock: Clock;
  readonly logger: Logger;
  /** The longest life of a token. */
  readonly tokenTtlMs: number;
  readonly rotateAfterMs?: number;
  /** How often each process reads the keys; a successor signs after twice this time. */
  readonly refreshMs?: number;
}

const DAY_MS = 24 * 3_600_000;
/** Clocks of processes differ. */
const SKEW_MS = 60_000;
/** A token with a made-up kid must not make us ask the database each time. */
const UNKNOWN_KID_MS = 2_000;

export class SigningKeys {
  readonly #options: Required<SigningKeysOptions>;
  readonly #timer: NodeJS.Timeout;
  #keys: readonly SigningKey[] = [];
  #reading: Promise<void> | null = null;
  #readAt = Number.NEGATIVE_INFINITY;

  constructor(options: SigningKeysOptions) {
    this.#options = { rotateAfterMs: 30 * DAY_MS, refreshMs: 60_000, ...options };
    this.#timer = setInterval(() => void this.#tick(), this.#options.refreshMs);
    this.#timer.unref();
  }

  /** The newest key that may sign already. */
  async current(): Promise<SigningKey> {
    const known = this.#signer();
    if (known) return known;
    await this.refresh();
    const stored = this.#signer() ?? this.#keys.at(-1);
    if (stored) return stored;
    await this.#insert(1, this.#options.clock.now() - SKEW_MS, null);
    await this.refresh();
    const made = this.#signer();
    if (!made) throw new SlipwayError("INTERNAL", { message: "no signing key could be made" });
    return made;
  }

  /** Null for a key that nobody knows, or that has retired. */
  async find(kid: string): Promise<SigningKey | null> {
    const now = this.#options.clock.now();
    let key = this.#keys.find((one) => one.kid === kid);
    if (!key && now - this.#readAt >= UNKNOWN_KID_MS) {
      await this.refresh();
      key = this.#keys.find((one) => one.kid === kid);
    }
    return key && (key.retireAt === null || now < key.retireAt) ? key : null;
  }

  /** Reads the keys; callers at the same time share one read. */
  async refresh(): Promise<void> {
    this.#reading ??= this.#read().finally(() => {
      this.#reading = null;
    });
    await this.#reading;
  }

  /** Publishes a successor. Of processes that do it at the same moment one wins, and the others take its key. */
  async rotate(): Promise<void> {
    await this.refresh();
    const newest = this.#keys.at(-1);
    // A successor that does not sign yet is the one.
    if (newest && newest.notBefore > this.#options.clock.now()) return;
    const signsAt = this.#options.clock.now() + 2 * this.#options.refreshMs;
    await this.#insert((newest?.generation ?? 0) + 1, newest ? signsAt : this.#options.clock.now() - SKEW_MS, newest ?? null);
    await this.refresh();
  }

  list(): readonly Pick<SigningKey, "kid" | "generation" | "notBefore" | "retireAt">[] {
    return this.#keys;
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #signer(): SigningKey | undefined {
    const now = this.#options.clock.now();
    return this.#keys.findLast((key) => key.notBefore <= now && (key.retireAt === null || now < key.retireAt));
  }

  async #tick(): Promise<void> {
    const { clock, logger, rotateAfterMs } = this.#options;
    try {
      await this.refresh();
      const newest = this.#keys.at(-1);
      if (newest && clock.now() - newest.notBefore > rotateAfterMs) await this.rotate();
    } catch (error) {
      // Known keys stay good while the database is away.
      if (!isSlipwayError(error, "DATABASE_UNAVAILABLE")) logger.error({ error }, "signing keys could not be refreshed");
    }
  }

  async #read(): Promise<void> {
    const { database, encryption, clock } = this.#options;
    const { rows } = await database.query<{
      kid: string;
      generation: number;
      private_key: string;
      not_before: Date;
      retire_at: Date | null;
    }>(
      "SELECT kid, generation, private_key, not_before, retire_at FROM signing_keys WHERE retire_at IS NULL OR retire_at > $1 ORDER BY generation",
      [new Date(clock.now())],
    );
    const known = new Map(this.#keys.map((key) => [key.kid, key]));
    this.#keys = rows.map((row) => {
      const retireAt = row.retire_at?.getTime() ?? null;
      const kept = known.get(row.kid);
      if (kept) return { ...kept, retireAt };
      const privateKey = createPrivateKey(encryption.decrypt(row.private_key, sealContext(row.kid)));
      const publicKey = createPublicKey(privateKey);
      return { kid: row.kid, generation: row.generation, privateKey, publicKey, notBefore: row.not_before.getTime(), retireAt };
    });
    this.#readAt = clock.now();
  }

  async #insert(generation: number, notBefore: number, former: SigningKey | null): Promise<void> {
    const { database, encryption, tokenTtlMs, clock } = this.#options;
    const kid = randomBytes(9).toString("base64url");
    const { privateKey } = generateKeyPairSync("ed25519");
    const sealed = encryption.encrypt(privateKey.export({ type: "pkcs8", format: "pem" }).toString(), sealContext(kid));
    try {
      await database.transaction(async (tx) => {
        await tx.query("INSERT INTO signing_keys (kid, generation, private_key, not_before) VALUES ($1, $2, $3, $4)", [
          kid,
          generation,
          sealed,
          new Date(notBefore),
        ]);
        if (former) {
          await tx.query("UPDATE signing_keys SET retire_at = $2 WHERE kid = $1 AND retire_at IS NULL", [
            former.kid,
            new Date(notBefore + tokenTtlMs + SKEW_MS),
          ]);
        }
        await tx.query("DELETE FROM signing_keys WHERE retire_at < $1", [new Date(clock.now() - DAY_MS)]);
      });
    } catch (error) {
      if (sqlState(error) !== UNIQUE_VIOLATION) throw error;
    }
  }
}

function sealContext(kid: string): string {
  return `signing-key:${kid}`;
}
