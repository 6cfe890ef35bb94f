/** The first administrator. Any number of processes may start at once: one creates the user, and only that one knows the password. */
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Database } from "../db/pool.ts";
import { generatePassword } from "./passwords.ts";
import type { Passwords } from "./passwords.ts";
import { registerSecret } from "../telemetry/redact.ts";

export const ADMIN_NAME = "admin";
export const ADMIN_PASSWORD_FILE = "admin-password";

export type AdminOutcome =
  | { readonly created: false }
  /** The password is null when it was given to us: then it is not printed. */
  | { readonly created: true; readonly generatedPassword: string | null; readonly file: string | null };

export interface EnsureAdminOptions {
  readonly database: Database;
  readonly passwords: Passwords;
  /** SLIPWAY_ADMIN_PASSWORD. Counts at the first start only: a password that was changed since must not come back with a restart. */
  readonly password: string | null;
  readonly dataDir: string;
}

/** An administrator who was removed is not made again as long as another one exists. */
export async function ensureAdmin(options: EnsureAdminOptions): Promise<AdminOutcome> {
  const { database, passwords } = options;
  const { rows } = await database.query<{ needed: boolean }>(`SELECT NOT EXISTS (${ANY_SYSADMIN}) AS needed`);
  if (rows[0]?.needed !== true) return { created: false };
  const password = options.password ?? generatePassword();
  registerSecret(password);
  const passwordHash = await passwords.hash(password);
  const inserted = await database.query(
    `INSERT INTO users (username, password_hash, sysadmin, realname, comment)
     SELECT $1, $2, true, 'system admin', '' WHERE NOT EXISTS (${ANY_SYSADMIN}) ON CONFLICT DO NOTHING`,
    [ADMIN_NAME, passwordHash],
  );
  if (inserted.rowCount !== 1) return { created: false };
  if (options.password !== null) return { created: true, generatedPassword: null, file: null };
  const file = join(options.dataDir, ADMIN_PASSWORD_FILE);
  // A mode applies to new files only.
  await rm(file, { force: true });
  await writeFile(file, `${password}\n`, { mode: 0o600, flag: "wx" });
  return { created: true, generatedPassword: password, file };
}

const ANY_SYSADMIN = "SELECT 1 FROM users WHERE sysadmin AND deleted_at IS NULL";
