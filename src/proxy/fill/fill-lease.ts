/**
 * Who fetches a digest: one row, held by a lease that its owner renews. Every new owner has a higher fence, so a former one that was only slow cannot
 * renew, and its staging is not mistaken for the new one's.
 */
import { gathered } from "../../db/gathered.ts";
import { SlipwayError } from "../../core/errors.ts";
import type { Queryable } from "../../db/pool.ts";
import type { Fill } from "./fill.ts";

export interface ProcessIdentity {
  readonly bootId: string;
  readonly host: string;
  /** Where other hosts reach this process, http://host:port; null while they cannot: it is known only once the listener is bound. */
  address: string | null;
}

export interface FillKey {
  readonly digest: string;
  readonly size: number | null;
  readonly projectId: number;
  readonly repository: string;
}

export interface Owner {
  readonly bootId: string;
  /** On whose behalf it fetches: that one's right is proved by the fetch. */
  readonly projectId: number;
  readonly repository: string;
  readonly host: string;
  readonly address: string | null;
}

export interface Lease {
  readonly fence: number;
  /** The catalog has a row of the digest, so that its bytes may have come into storage until now. */
  readonly isKnown: boolean;
}

export type LeaseAnswer = ({ readonly held: true } & Lease) | { readonly held: false; readonly owner: Owner | null };

export const LEASE_MS = 5_000;
export const RENEW_MS = 1_000;
const LEASES_PER_STATEMENT = 100;

interface LeaseRow {
  project_id: number;
  repository: string;
  owner: string | null;
  owner_host: string | null;
  owner_address: string | null;
  fence: number;
}

export class FillLeases {
  readonly #db: Queryable;
  readonly #self: ProcessIdentity;
  /** Null where somebody else holds the lease. */
  readonly #take = gathered<FillKey, Lease | null>({
    run: async (keys) => {
      const leases = await this.#takeAll(keys, "any");
      return keys.map(({ digest }) => leases.get(digest) ?? null);
    },
    identityOf: ({ digest }) => digest,
    max: LEASES_PER_STATEMENT,
  });

  constructor(db: Queryable, self: ProcessIdentity) {
    this.#db = db;
    this.#self = self;
  }

  /** Takes the lease when nobody has it or its owner is silent; else tells who has it. */
  async acquire(key: FillKey): Promise<LeaseAnswer> {
    const lease = await this.#take(key);
    if (lease !== null) return { held: true, ...lease };
    return { held: false, owner: await this.findOwner(key.digest) };
  }

  /** Of those that nobody has and that their repository has no link to, by digest. */
  acquireUnlinked(keys: readonly FillKey[]): Promise<Map<string, Lease>> {
    return this.#takeAll(keys, "unlinked");
  }

  async #takeAll(keys: readonly FillKey[], which: "any" | "unlinked"): Promise<Map<string, Lease>> {
    const { bootId, host, address } = this.#self;
    // In one order everywhere: two processes that take several of the same would else wait for each other.
    const { rows } = await this.#db.query<{ digest: string; fence: number; known: boolean }>(
      `INSERT INTO fills (digest, size, project_id, repository, owner, owner_host, owner_address, fence, lease_until, attempts)
       SELECT k.digest, k.size, k.project_id, k.repository, $5, $6, $7, 1, now() + $8 * interval '1 ms', 1
       FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[]) AS k (digest, size, project_id, repository)
       WHERE $9 OR NOT EXISTS (SELECT FROM repositories r JOIN blob_links l ON l.repository_id = r.id WHERE r.name = k.repository AND l.digest = k.digest)
       ORDER BY k.digest
       ON CONFLICT (digest) DO UPDATE SET project_id = EXCLUDED.project_id, repository = EXCLUDED.repository, owner = EXCLUDED.owner, owner_host = EXCLUDED.owner_host, owner_address = EXCLUDED.owner_address,
         fence = fills.fence + 1, lease_until = EXCLUDED.lease_until, attempts = fills.attempts + 1, size = coalesce(EXCLUDED.size, fills.size), updated_at = now()
       WHERE fills.lease_until IS NULL OR fills.lease_until < now() OR fills.owner = EXCLUDED.owner
       RETURNING digest, fence, EXISTS (SELECT FROM blobs b WHERE b.digest = fills.digest) AS known`,
      [
        keys.map((key) => key.digest),
        keys.map((key) => key.size),
        keys.map((key) => key.projectId),
        keys.map((key) => key.repository),
        bootId,
        host,
        address,
        LEASE_MS,
        which === "any",
      ],
    );
    return new Map(rows.map(({ digest, fence, known }) => [digest, { fence, isKnown: known }]));
  }

  /** Who holds the lease now. */
  async findOwner(digest: string): Promise<Owner | null> {
    const { rows } = await this.#db.query<LeaseRow>(
      "SELECT project_id, repository, owner, owner_host, owner_address, fence FROM fills WHERE digest = $1 AND lease_until >= now()",
      [digest],
    );
    const row = rows[0];
    if (!row?.owner) return null;
    const { owner: bootId, owner_host: host, owner_address: address, project_id: projectId, repository } = row;
    return { bootId, host: host ?? "", address, projectId, repository };
  }

  /** One statement for all fills of this process; the digests that were lost to another owner are left out of the answer. */
  async renew(fills: readonly { digest: string; fence: number; stagedBytes: number }[]): Promise<Set<string>> {
    if (fills.length === 0) return new Set();
    const { rows } = await this.#db.query<{ digest: string }>(
      `UPDATE fills f SET lease_until = now() + $5 * interval '1 ms', staged_bytes = m.staged, updated_at = now()
       FROM unnest($1::text[], $2::int[], $3::bigint[]) AS m (digest, fence, staged)
       WHERE f.digest = m.digest AND f.fence = m.fence AND f.owner = $4 RETURNING f.digest`,
      [
        fills.map((fill) => fill.digest),
        fills.map((fill) => fill.fence),
        fills.map((fill) => fill.stagedBytes),
        this.#self.bootId,
        LEASE_MS,
      ],
    );
    return new Set(rows.map((row) => row.digest));
  }

  /** The blob is stored: nobody has to fetch it. */
  async complete(digest: string, fence: number): Promise<void> {
    await this.#db.query("DELETE FROM fills WHERE digest = $1 AND fence = $2 AND owner = $3", [digest, fence, this.#self.bootId]);
  }

  /** Lets go; with an error the row stays, so that a later owner resumes what is staged. */
  async release(digest: string, fence: number, error: string | null): Promise<void> {
    await this.#db.query(
      "UPDATE fills SET owner = NULL, lease_until = NULL, last_error = $4, updated_at = now() WHERE digest = $1 AND fence = $2 AND owner = $3",
      [digest, fence, this.#self.bootId, error],
    );
  }

  /** Nobody will ever have it: there is nothing to resume. */
  async forget(digest: string): Promise<void> {
    await this.#db.query("DELETE FROM fills WHERE digest = $1 AND (lease_until IS NULL OR lease_until < now())", [digest]);
  }

  /** Fills that nobody holds, oldest first: for the workflow that completes them. */
  async listAbandoned(limit: number): Promise<FillKey[]> {
    const { rows } = await this.#db.query<{ digest: string; size: number | null; project_id: number; repository: string }>(
      `SELECT digest, size, project_id, repository FROM fills
       WHERE (lease_until IS NULL OR lease_until < now()) AND updated_at < now() - interval '10 seconds' AND attempts < 10 ORDER BY updated_at LIMIT $1`,
      [limit],
    );
    return rows.map((row) => ({ digest: row.digest, size: row.size, projectId: row.project_id, repository: row.repository }));
  }
}

/** Renews the leases of all; a fill whose lease went to another is stopped: two writers of one file would both fail. */
export async function keepLeases(held: readonly { readonly source: Fill; readonly fence: number }[], leases: FillLeases): Promise<void> {
  const kept = await leases.renew(held.map(({ source, fence }) => ({ digest: source.digest, fence, stagedBytes: source.stagedBytes })));
  const reason = new SlipwayError("UPSTREAM_UNAVAILABLE", { message: "another process took this fill over", retryAfterSeconds: 1 });
  for (const { source } of held) if (!kept.has(source.digest) && source.state === "running") void source.abandon(reason);
}
