/**
 * What a change of content leaves in the outbox: link records, from which the rows can be rebuilt, and events for whoever acts on changes.
 */
import type { Principal } from "../auth/principal.ts";
import type { OutboxDraft } from "./outbox.ts";
import type { ContentOrigin } from "./registry.ts";

export type LinkTarget = "blob" | "manifest" | "tag" | "repository";

export interface LinkRecord {
  readonly op: "add" | "remove";
  readonly target: LinkTarget;
  readonly repository: string;
  /** Absent for a repository. */
  readonly digest?: string;
  readonly mediaType?: string;
  readonly size?: number;
  readonly tag?: string;
  /** ISO 8601. */
  readonly at: string;
}

export interface CatalogEvent {
  readonly type: "push" | "tag" | "delete" | "untag" | "delete-repository";
  readonly repository: string;
  readonly digest: string | null;
  readonly tag: string | null;
  readonly mediaType: string | null;
  readonly artifactType: string | null;
  /** Of a signature or the like: what it belongs to. */
  readonly subject: string | null;
  readonly size: number | null;
  /** Who did it, as Principal.key. */
  readonly principal: string;
  readonly origin: ContentOrigin;
  /** The registry that a replication took it from. */
  readonly originRegistry: number | null;
  readonly at: string;
}

export function linkRecord(record: LinkRecord): OutboxDraft {
  return { kind: "link-record", key: record.repository, payload: record };
}

export interface EventFacts {
  readonly repository: string;
  readonly principal: Principal;
  readonly at: string;
  readonly origin?: ContentOrigin;
  readonly originRegistry?: number;
  readonly digest?: string;
  readonly tag?: string;
  readonly mediaType?: string;
  readonly artifactType?: string | null;
  readonly subject?: string | null;
  readonly size?: number;
}

export function eventRecord(type: CatalogEvent["type"], facts: EventFacts): OutboxDraft {
  const payload: CatalogEvent = {
    type,
    repository: facts.repository,
    digest: facts.digest ?? null,
    tag: facts.tag ?? null,
    mediaType: facts.mediaType ?? null,
    artifactType: facts.artifactType ?? null,
    subject: facts.subject ?? null,
    size: facts.size ?? null,
    principal: facts.principal.key,
    origin: facts.origin ?? "push",
    originRegistry: facts.originRegistry ?? null,
    at: facts.at,
  };
  return { kind: "event", key: facts.repository, payload };
}
