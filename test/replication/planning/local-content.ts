/** Images pushed to the local registry of a test. */
import { randomBytes } from "node:crypto";
import { ANONYMOUS } from "../../../src/auth/principal.ts";
import type { Project } from "../../../src/catalog/registry.ts";
import { body, digestOf, imageManifest } from "../../catalog/support.ts";
import type { ReplicationSetting } from "../support.ts";

export async function pushLocal(
  setting: ReplicationSetting,
  project: Project,
  repository: string,
  options: { readonly tags?: readonly string[]; readonly subject?: { digest: string } } = {},
): Promise<{ digest: string; bytes: Buffer; blobs: { digest: string; bytes: Buffer }[] }> {
  const blobs = [randomBytes(40), randomBytes(100)].map((bytes) => ({ digest: digestOf(bytes), bytes }));
  const rest = { repository, project, principal: ANONYMOUS };
  for (const { digest, bytes } of blobs)
    await setting.catalog.writer.uploadBlob({ ...rest, digest, source: body(bytes), length: bytes.length });
  const [config = "", layer = ""] = blobs.map(({ digest }) => digest);
  const bytes = imageManifest({ config, configSize: 40, layer, layerSize: 100 }, options);
  const put = { ...rest, tags: options.tags ?? [], digest: null, contentType: undefined, bytes };
  return { digest: (await setting.catalog.writer.putManifest(put)).digest, bytes, blobs };
}
