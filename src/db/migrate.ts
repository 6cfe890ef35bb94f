/**
 * Brings the schema up to date. Files run in the order of their names, each in one transaction, under a lock that keeps processes which
 * start together apart. A file that has run never changes: schema changes are new files (expand first, contract later).
 */
import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { SlipwayError } from "../core/errors.ts";
import type { Database } from "./pool.ts";

const FOLDER = new URL("./migrations/", import.meta.url);
const LOCK_KEY = 7_514_003;

export async function migrate(database: Database): Promise<string[]> {
  const files = (await readdir(FOLDER)).filter((name) => name.endsWith(".sql")).toSorted();
  const applied: string[] = [];
  await database
    .query(
      "CREATE TABLE IF NOT EXISTS schema_migrations (name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())",
    )
    .catch(ignoreRace);
  for (const name of files) {
    const sql = await readFile(new URL(name, FOLDER), "utf8");
    const sha256 = createHash("sha256").update(sql).digest("hex");
    const ran = await database.transaction(async (tx) => {
      await tx.query("SELECT pg_advisory_xact_lock($1)", [LOCK_KEY]);
      const known = await tx.query<{ sha256: string }>("SELECT sha256 FROM schema_migrations WHERE name = $1", [name]);
      const row = known.rows[0];
      if (row) {
        if (row.sha256 !== sha256)
          throw new SlipwayError("CONFIG_INVALID", { message: `migration ${name} was changed after it ran on this database` });
        return false;
      }
      await tx.query(sql);
      await tx.query("INSERT INTO schema_migrations (name, sha256) VALUES ($1, $2)", [name, sha256]);
      return true;
    });
    if (ran) applied.push(name);
  }
  return applied;
}

/** Two starters at once: CREATE TABLE IF NOT EXISTS can still collide inside the system catalogue. */
function ignoreRace(error: unknown): void {
  const code = (error as { code?: string }).code;
  if (code !== "23505" && code !== "42P07") throw error;
}
