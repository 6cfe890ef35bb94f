/** Where the bytes of a fill come from: the repository's own upstream. */
import type { UpstreamClient } from "../../upstream/client.ts";
import type { Priority } from "../../upstream/types.ts";
import type { FillInput } from "./fill.ts";

export interface FillSource {
  readonly upstreamRepository: string;
  readonly digest: string;
  readonly size: number | null;
  readonly client: UpstreamClient;
  readonly priority: Priority;
}

export function fetcherOf({ upstreamRepository, digest, size, client, priority }: FillSource): FillInput["fetch"] {
  return async (range, { elsewhere, signal }) => {
    const isPart = range.start > 0 || range.end !== null;
    const answer = await client.getBlob(upstreamRepository, digest, {
      ...(isPart ? { range: { start: range.start, end: range.end === null ? undefined : range.end - 1 } } : {}),
      ...(size === null ? {} : { expectedSize: size }),
      acceptWhole: true,
      elsewhere,
      priority,
      signal,
    });
    return { size: answer.size, body: answer.body, isPart: answer.isPart };
  };
}
