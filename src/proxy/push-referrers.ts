/**
 * An upstream without a referrers API does not list a signature that is pushed through: whoever pushes has to write the list that stands under a tag, and the client cannot know,
 * because we have the API. One writer at a time in this process; what others wrote meanwhile is found by reading again.
 */
import { isSlipwayError, SlipwayError } from "../core/errors.ts";
import { referrersTag } from "../oci/digests.ts";
import { MEDIA_TYPES } from "../oci/media-types.ts";
import { mergeReferrers } from "../oci/referrers-list.ts";
import type { ListedReferrer } from "../oci/referrers-list.ts";
import type { UpstreamClient } from "../upstream/client.ts";

export interface PushedReferrer {
  readonly client: UpstreamClient;
  readonly repository: string;
  readonly subject: string;
  readonly referrer: ListedReferrer;
  readonly signal?: AbortSignal | undefined;
}

const ROUNDS = 4;

export class ReferrerLists {
  readonly #turns = new Map<string, Promise<void>>();

  async add(pushed: PushedReferrer): Promise<void> {
    const key = `${pushed.repository} ${pushed.subject}`;
    const turn = (this.#turns.get(key) ?? Promise.resolve()).catch(() => undefined).then(() => addToList(pushed));
    this.#turns.set(key, turn);
    try {
      await turn;
    } finally {
      if (this.#turns.get(key) === turn) this.#turns.delete(key);
    }
  }
}

async function addToList({ client, repository, subject, referrer, signal }: PushedReferrer): Promise<void> {
  const tag = referrersTag(subject);
  const call = { priority: "interactive", signal } as const;
  for (let round = 0; round < ROUNDS; round += 1) {
    const before = await client.getManifest(repository, tag, call).catch((error: unknown) => {
      if (isSlipwayError(error, "MANIFEST_UNKNOWN", "NAME_UNKNOWN")) return null;
      throw error;
    });
    const isList = before !== null && !before.notModified && before.mediaType === MEDIA_TYPES.ociIndex;
    const merged = mergeReferrers(isList ? before.bytes : null, referrer);
    if (merged === null) return;
    await client.putManifest(repository, tag, { bytes: Buffer.from(merged), mediaType: MEDIA_TYPES.ociIndex }, call);
  }
  throw new SlipwayError("UPSTREAM_UNAVAILABLE", { message: "others keep writing the same list of referrers", retryAfterSeconds: 1 });
}
