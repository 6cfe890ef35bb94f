/** Repositories and artifacts in Harbor's shapes. */
import type { ListedArtifact, ListedReferrer, ListedRepository } from "../../src/auth/content-list.ts";
import { omitEmpty } from "./conventions.ts";

const NEVER = "0001-01-01T00:00:00.000Z";
const IMAGE_CONFIG = /^application\/vnd\.(?:oci\.image\.config\.v1\+json|docker\.container\.image\.v1\+json)$/;
const KINDS: readonly (readonly [pattern: RegExp, kind: string])[] = [
  [/cosign|sigstore/, "signature.cosign"],
  [/notary/, "signature.notation"],
  [/sbom|spdx|cyclonedx/, "harbor.sbom"],
];

export function describeRepository(repository: ListedRepository): object {
  return omitEmpty(
    {
      id: repository.id,
      project_id: repository.projectId,
      name: repository.name,
      description: repository.description,
      artifact_count: repository.artifactCount,
      pull_count: repository.pullCount,
      creation_time: repository.createdAt.toISOString(),
      update_time: repository.updatedAt.toISOString(),
    },
    ["artifact_count", "pull_count"],
  );
}

export function describeArtifact(artifact: ListedArtifact, shown: { readonly tags: boolean; readonly accessories: boolean }): object {
  const id = idOf(artifact.digest);
  return omitEmpty({
    id,
    type: typeOf(artifact),
    media_type: artifact.configMediaType ?? artifact.mediaType,
    manifest_media_type: artifact.mediaType,
    artifact_type: artifact.artifactType,
    project_id: artifact.projectId,
    repository_id: artifact.repositoryId,
    repository_name: artifact.repository,
    digest: artifact.digest,
    size: artifact.size,
    push_time: artifact.pushedAt.toISOString(),
    pull_time: artifact.pulledAt?.toISOString() ?? NEVER,
    annotations: Object.keys(artifact.annotations).length === 0 ? null : artifact.annotations,
    references: artifact.children.map((child) =>
      omitEmpty({ parent_id: id, child_id: idOf(child.digest), child_digest: child.digest, platform: child.platform }),
    ),
    tags: shown.tags ? artifact.tags.map((tag) => describeTag(artifact, tag)) : [],
    accessories: shown.accessories ? artifact.referrers.map((referrer) => describeAccessory(artifact, referrer)) : [],
    labels: [],
  });
}

function describeTag({ digest, repositoryId }: ListedArtifact, { name, pushedAt, pulledAt }: ListedArtifact["tags"][number]) {
  const times = { push_time: new Date(pushedAt).toISOString(), pull_time: pulledAt === null ? NEVER : new Date(pulledAt).toISOString() };
  return omitEmpty({ artifact_id: idOf(digest), repository_id: repositoryId, name, ...times, immutable: false }, ["immutable"]);
}

function describeAccessory(subject: ListedArtifact, { digest, size, artifactType, pushedAt }: ListedReferrer) {
  return omitEmpty(
    {
      id: idOf(digest),
      artifact_id: idOf(digest),
      subject_artifact_id: idOf(subject.digest),
      subject_artifact_digest: subject.digest,
      subject_artifact_repo: subject.repository,
      digest,
      size,
      type: KINDS.find(([pattern]) => pattern.test(artifactType ?? ""))?.[1] ?? "subject.accessory",
      icon: "",
      creation_time: new Date(pushedAt).toISOString(),
    },
    ["artifact_id", "subject_artifact_digest", "subject_artifact_repo", "size", "digest", "type", "icon"],
  );
}

/** Content is counted nowhere: the number is the beginning of the digest, as much of it as a number holds. */
function idOf(digest: string): number {
  return Number.parseInt(digest.slice(digest.indexOf(":") + 1, digest.indexOf(":") + 13), 16);
}

/** As Harbor names it: of an image, or of what the vendor calls its configuration. */
function typeOf({ mediaType, configMediaType, artifactType }: ListedArtifact): string {
  const type = artifactType ?? configMediaType;
  if (type === null || IMAGE_CONFIG.test(type) || /index|manifest\.list/.test(mediaType)) return "IMAGE";
  if (/cncf\.helm\.config/.test(type)) return "CHART";
  return /^application\/vnd\.([\w-]+(?:\.[\w-]+)*?)(?:\.config)?(?:\.v\d+)?(?:\+\w+)?$/.exec(type)?.[1]?.toUpperCase() ?? "UNKNOWN";
}
