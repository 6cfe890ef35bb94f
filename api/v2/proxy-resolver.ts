/** Names to targets, local and proxied: the resolver of src/proxy in the words of this API. */
import type { NameResolver, ResolvedName } from "../../src/proxy/resolver.ts";
import type { Target, TargetRequest, TargetResolver } from "./target.ts";

export function createProxyResolver(resolver: NameResolver): TargetResolver {
  return {
    peek(request) {
      const found = resolver.peek(request);
      return found && toTarget(found, request);
    },
    lookup(request) {
      const look = resolver.lookup(request);
      return () => {
        const found = look();
        return found && toTarget(found, request);
      };
    },
    resolve: async (request, signal) => toTarget(await resolver.resolve(request, signal), request),
  };
}

function toTarget(found: ResolvedName, request: TargetRequest): Target {
  const { requested } = request;
  if (found.kind === "local" || found.project === null) {
    return { kind: "local", requested, repository: found.repository, projectName: found.projectName, project: found.project };
  }
  return {
    kind: "proxy",
    requested,
    repository: found.repository,
    projectName: found.projectName,
    project: found.project,
    upstreamRepository: found.upstreamRepository,
    namespace: request.namespace,
  };
}
