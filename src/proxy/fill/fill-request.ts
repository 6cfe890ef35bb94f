/** Who asks for a cold blob, and from where it may come. */
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
