/** Refresh tokens, which docker calls identity tokens: random, kept by hash, ended by a change of the account's credentials. */
import { createHash, randomBytes } from "node:crypto";
import type { Clock } from "../core/clock.ts";
import type { Database } from "../db/pool.ts";

const TTL_MS = 90 * 24 * 3_600_000;
const MAX_PER_PRINCIPAL = 50;
const PREFIX = "slwr_";

export class RefreshTokens {
  readonly #database: Database;
  readonly #clock: Clock;

  constructor(database: Database, clock: Clock) {
    this.#database = database;
    this.#clock = clock;
  }

  async issue(account: { key: string; credentialVersion: number; expiresAt: number | null }): Promise<string> {
    const token = `${PREFIX}${randomBytes(32).toString("base64url")}`;
    const now = this.#clock.now();
    const expiresAt = Math.min(now + TTL_MS, account.expiresAt ?? Number.POSITIVE_INFINITY);
    await this.#database.query(
      `WITH gone AS (
         DELETE FROM refresh_tokens WHERE principal = $2 AND (expires_at < $5 OR token_hash IN (
           SELECT token_hash FROM refresh_tokens WHERE principal = $2 ORDER BY created_at DESC OFFSET $6))
       )
       INSERT INTO refresh_tokens (token_hash, principal, credential_version, expires_at) VALUES ($1, $2, $3, $4)`,
      [hashOf(token), account.key, account.credentialVersion, new Date(expiresAt), new Date(now), MAX_PER_PRINCIPAL - 1],
    );
    return token;
  }

  /** The principal key and the credentials that the token stands for; null when it is unknown or has expired. */
  async find(token: string): Promise<{ readonly principal: string; readonly credentialVersion: number } | null> {
    if (!token.startsWith(PREFIX) || token.length > 128) return null;
    const { rows } = await this.#database.query<{ principal: string; credential_version: number }>(
      "SELECT principal, credential_version FROM refresh_tokens WHERE token_hash = $1 AND expires_at > $2",
      [hashOf(token), new Date(this.#clock.now())],
    );
    return rows[0] ? { principal: rows[0].principal, credentialVersion: rows[0].credential_version } : null;
  }
}

function hashOf(token: string): string {
  return createHash("sha256").update(token).digest("base64url");
}
