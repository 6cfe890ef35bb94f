/** How one proxy behaves, read from its project's metadata: Harbor's keys where it has them, ours beside them. All values are texts there. */
import { DEFAULT_TAG_POLICY } from "./freshness.ts";
import type { TagMode, TagPolicy } from "./freshness.ts";
import { splitPatterns } from "./naming.ts";
import type { RepositoryRules } from "./naming.ts";

export interface ProxyPolicy {
  readonly tags: TagPolicy;
  readonly rules: RepositoryRules;
  readonly referrers: boolean;
  readonly pushThrough: boolean;
  readonly prefetch: boolean;
}

export interface ProxyDefaults {
  readonly mode: TagMode;
  readonly ttlSeconds: number;
  readonly maxStaleSeconds: number;
  readonly negativeSeconds: number;
  readonly prefetch: boolean;
}

export const TAG_MODES = ["revalidate", "always-check", "local-first", "offline"] as const satisfies readonly TagMode[];

export function parseProxyPolicy(metadata: Readonly<Record<string, string>>, defaults: ProxyDefaults): ProxyPolicy {
  const seconds = (key: string, fallback: number): number => {
    const value = Number(metadata[key]);
    return metadata[key] !== undefined && Number.isFinite(value) && value >= 0 ? value : fallback;
  };
  const isOn = (key: string, fallback: boolean): boolean => (metadata[key] === undefined ? fallback : metadata[key] === "true");
  return {
    tags: {
      mode: TAG_MODES.find((mode) => mode === metadata["proxy_mode"]) ?? defaults.mode,
      ttlMs: seconds("proxy_tag_ttl", defaults.ttlSeconds) * 1000,
      maxStaleMs: seconds("proxy_max_stale", defaults.maxStaleSeconds) * 1000,
      waitMs: DEFAULT_TAG_POLICY.waitMs,
      negativeTtlMs: Math.min(60, Math.max(10, seconds("proxy_negative_ttl", defaults.negativeSeconds))) * 1000,
      keepDeleted: isOn("proxy_keep_deleted", metadata["proxy_cache_local_on_not_found"] === "true"),
    },
    rules: rulesOf(metadata),
    referrers: true,
    pushThrough: isOn("proxy_push_through", false),
    prefetch: isOn("proxy_prefetch", defaults.prefetch),
  };
}

function rulesOf(metadata: Readonly<Record<string, string>>): RepositoryRules {
  const patterns = (text: string | undefined): string[] => splitPatterns(text ?? "");
  const harbor = patterns(metadata["proxy_cache_filter_pattern"]);
  return { allow: [...patterns(metadata["proxy_allow"]), ...harbor], deny: patterns(metadata["proxy_deny"]) };
}
