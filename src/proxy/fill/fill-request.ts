/** Who asks for a cold blob, and from where it may come. */
import { SlipwayError } from "../../core/errors.ts";
import type { UpstreamClient } from "../../upstream/client.ts";
import type { Priority } from "../../upstream/types.ts";

export interface FillTarget {
  readonly projectId: number;
  /** The name under which the content is kept here. */
  readonly repository: string;
}

export interface FillRequest extends FillTarget {
  readonly upstreamRepository: string;
  readonly digest: string;
  /** From a descriptor of a manifest of this repository. */
  readonly size: number | null;
  readonly client: UpstreamClient;
  readonly priority: Priority;
}

/** Bytes that are here, or on their way, for somebody else: the request's own upstream must have the digest, of the same size. */
export async function proveRight({ digest, priority, upstreamRepository, client }: FillRequest, size: number): Promise<void> {
  const head = await client.headBlob(upstreamRepository, digest, { priority });
  if (head.size !== size) throw new SlipwayError("BLOB_UNKNOWN", { detail: { digest } });
}
