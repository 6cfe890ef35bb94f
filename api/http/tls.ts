/** Certificate and key from files, read again when they change: a renewed certificate needs no restart. */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import type { Server } from "node:https";
import { SlipwayError } from "../../src/core/errors.ts";

export interface TlsFiles {
  readonly certFile: string;
  readonly keyFile: string;
}

interface TlsPair {
  readonly cert: Buffer;
  readonly key: Buffer;
}

export async function loadTls(files: TlsFiles): Promise<TlsPair> {
  try {
    const [cert, key] = await Promise.all([readFile(files.certFile), readFile(files.keyFile)]);
    return { cert, key };
  } catch (cause) {
    throw new SlipwayError("CONFIG_INVALID", { message: "the TLS certificate or key cannot be read", cause });
  }
}

/**
 * Compares contents, not times: secret mounts swap symbolic links, which file watchers miss. A half-written pair does not load and is
 * tried again at the next turn; the old one stays in use.
 */
export function reloadTls(server: Server, files: TlsFiles, options: { intervalMs: number; onError: (error: unknown) => void }): () => void {
  let known: string | null = null;
  let busy = false;
  async function turn(): Promise<void> {
    if (busy) return;
    busy = true;
    try {
      const pair = await loadTls(files);
      const seen = createHash("sha256").update(pair.cert).update(pair.key).digest("hex");
      if (known !== null && seen !== known) server.setSecureContext(pair);
      known = seen;
    } catch (error) {
      options.onError(error);
    } finally {
      busy = false;
    }
  }
  void turn();
  const timer = setInterval(() => void turn(), options.intervalMs);
  timer.unref();
  return () => clearInterval(timer);
}
