/** The public registries that Slipway knows by itself. */
import { typeForHost } from "./registry-draft.ts";
import { EMPTY_REGISTRY } from "./registry-store.ts";
import type { RegistryDraft } from "./registry-store.ts";

export const DEFAULT_HOSTS = [
  "docker.io",
  "ghcr.io",
  "quay.io",
  "registry.k8s.io",
  "gcr.io",
  "mcr.microsoft.com",
  "public.ecr.aws",
] as const;

/** Behind whatever an operator makes for the same host. */
const PRIORITY = 1_000;

export function defaultUpstream(host: string): RegistryDraft {
  return {
    ...EMPTY_REGISTRY,
    name: host,
    url: host === "docker.io" ? "https://registry-1.docker.io" : `https://${host}`,
    type: typeForHost(host.replace(/:\d+$/, "")),
    hosts: [host],
    priority: PRIORITY,
    origin: "default",
  };
}
