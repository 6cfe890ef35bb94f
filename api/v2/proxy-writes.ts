/**
 * Writes to proxy projects. Refused as a rule; where a proxy passes pushes on, uploads are received like those of a local project, and a manifest goes
 * upstream before it is taken in. Deleting stays the upstream's own business.
 */
import { SlipwayError } from "../../src/core/errors.ts";
import type { ProxyPolicy } from "../../src/proxy/plan/policy.ts";
import type { PushThrough } from "../../src/proxy/push-through.ts";
import type { Exchange } from "./exchange.ts";
import { putManifest } from "./manifests.ts";
import type { RegistryServices } from "./services.ts";
import type { ContentHandler, ContentHandlers, LocalTarget, Operation, ProxyTarget } from "./target.ts";

type WriteOperation = Exclude<Operation, "manifest.read" | "blob.read" | "tags.list" | "referrers.list">;
export type ProxyWrites = Readonly<Record<WriteOperation, ContentHandler<ProxyTarget>>>;

export interface ProxyWriteParts {
  readonly pushThrough: PushThrough;
  policyOf(project: ProxyTarget["project"]): Pick<ProxyPolicy, "pushThrough">;
}

export function createProxyWrites(parts: ProxyWriteParts, local: ContentHandlers<LocalTarget>, services: RegistryServices): ProxyWrites {
  const received =
    (operation: WriteOperation): ContentHandler<ProxyTarget> =>
    async (exchange, target) => {
      requirePushThrough(parts, target);
      await local.operations[operation](exchange, asLocal(target));
    };
  return {
    "manifest.put": async (exchange: Exchange, target: ProxyTarget) => {
      requirePushThrough(parts, target);
      await putManifest(exchange, asLocal(target), services, (put) => parts.pushThrough.putManifest(target, put, exchange.signal));
    },
    "manifest.delete": refuse,
    "blob.delete": refuse,
    "upload.start": received("upload.start"),
    "upload.status": received("upload.status"),
    "upload.append": received("upload.append"),
    "upload.finish": received("upload.finish"),
    "upload.cancel": received("upload.cancel"),
  };
}

function asLocal({ requested, repository, projectName, project }: ProxyTarget): LocalTarget {
  return { kind: "local", requested, repository, projectName, project };
}

function requirePushThrough(parts: ProxyWriteParts, target: ProxyTarget): void {
  if (!parts.policyOf(target.project).pushThrough) throw refusal();
}

async function refuse(): Promise<void> {
  throw refusal();
}

function refusal(): SlipwayError {
  return new SlipwayError("UNSUPPORTED", { message: "this project is a proxy: push to the upstream registry" });
}
