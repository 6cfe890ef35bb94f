/**
 * Under which user Postgres runs. It refuses root and it wants a user that the system knows by name. Both are met without another user's
 * files by a user namespace; where that is forbidden, root hands over to an unprivileged user.
 */
import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { SlipwayError } from "../core/errors.ts";
import { AS_SELF, namespaceWorks, runToEnd, plainEnvironment } from "./guarded-spawn.ts";
import type { RunAs } from "./guarded-spawn.ts";

export interface Account {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

export interface RunAsOptions {
  /** The cluster, when there is one; who owns it has a say. */
  readonly clusterDir: string;
  /** Tests force the way that this machine would not take. */
  readonly avoidNamespace?: boolean;
}

/** Names that exist on most systems and own nothing that matters. */
const PREFERRED = ["postgres", "nobody", "daemon"];

export async function chooseRunAs(options: RunAsOptions): Promise<RunAs> {
  const uid = process.getuid?.() ?? -1;
  if (uid === -1) return AS_SELF;
  const accounts = await readAccounts();
  const owner = (await stat(join(options.clusterDir, "PG_VERSION")).catch(() => null))?.uid ?? uid;
  if (uid !== 0) {
    if (owner !== uid) {
      throw new SlipwayError("CONFIG_INVALID", {
        message: `${options.clusterDir} belongs to user ${owner}, we are user ${uid}: start as that user, change the owner, or choose another SLIPWAY_DATA_DIR`,
      });
    }
    // On other systems than Linux accounts are not in this file, and initdb finds them.
    if (process.platform !== "linux" || accounts.length === 0 || accounts.some((account) => account.uid === uid)) return AS_SELF;
    const stranger = pick(accounts);
    return stranger && namespaceWorks(stranger.uid, stranger.gid) ? { kind: "namespace", uid: stranger.uid, gid: stranger.gid } : AS_SELF;
  }
  if (owner !== 0) {
    const account = accounts.find((candidate) => candidate.uid === owner);
    if (account) return { kind: "uid", uid: account.uid, gid: account.gid };
  }
  const account = pick(accounts);
  if (!account) {
    throw new SlipwayError("CONFIG_INVALID", {
      message:
        "Postgres does not run as root and this system has no other user: set SLIPWAY_DATABASE_URL, or start Slipway as another user",
    });
  }
  const kind = options.avoidNamespace !== true && namespaceWorks(account.uid, account.gid) ? "namespace" : "uid";
  return { kind, uid: account.uid, gid: account.gid };
}

/** Whether that user can come to the folder. */
export async function canReach(runAs: RunAs, path: string): Promise<boolean> {
  const result = await runToEnd({
    command: "test",
    args: ["-x", path],
    env: plainEnvironment(),
    cwd: "/",
    runAs,
  }).catch(() => null);
  return result?.code === 0;
}

/** Where another user's cluster lives when the data folder is closed to that user; one place for each data folder. */
export function handOverFolder(dataDir: string, base = "/var/lib/slipway"): string {
  return join(base, createHash("sha256").update(dataDir).digest("hex").slice(0, 16));
}

function pick(accounts: readonly Account[]): Account | undefined {
  for (const name of PREFERRED) {
    const found = accounts.find((account) => account.name === name && account.uid > 0);
    if (found) return found;
  }
  return accounts.find((account) => account.uid > 0);
}

async function readAccounts(): Promise<Account[]> {
  const text = await readFile("/etc/passwd", "utf8").catch(() => "");
  return text.split("\n").flatMap((line) => {
    const [name, , uid, gid] = line.split(":");
    return name && uid && gid && /^\d+$/.test(uid) && /^\d+$/.test(gid) ? [{ name, uid: Number(uid), gid: Number(gid) }] : [];
  });
}
