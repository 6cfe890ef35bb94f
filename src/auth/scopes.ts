/** The scope texts of the token protocol: "repository:<name>:<actions>", "registry:catalog:*". Pure. */
import type { Principal, RegistryAction, TokenScope } from "./principal.ts";

export interface AccessEntry {
  readonly type: string;
  readonly name: string;
  readonly actions: readonly string[];
}

/** In a principal's bounds these stand beside repository names, which never hold a colon. */
export const CATALOG_BOUND = "registry:catalog";
/** A token is good for the management API only when this was asked for. */
export const API_BOUND = "slipway:api";

export const REGISTRY_ACTIONS: readonly RegistryAction[] = ["pull", "push", "delete"];
/** Clients ask for a handful; a header of 32 KiB would hold thousands. */
export const MAX_SCOPES = 64;

/** Null for a text that is no scope. Names may hold colons (a host with a port), so type and actions are cut from the ends. */
export function parseScope(text: string): AccessEntry | null {
  const first = text.indexOf(":");
  const last = text.lastIndexOf(":");
  if (first <= 0 || last <= first) return null;
  // "repository(plugin)" names a class of repository, which changes nothing here.
  const type = text.slice(0, first).replace(/\([a-z0-9]+\)$/, "");
  const name = text.slice(first + 1, last);
  const actions = text
    .slice(last + 1)
    .split(",")
    .map((action) => action.trim())
    .filter((action) => action !== "");
  return name === "" ? null : { type, name, actions: [...new Set(actions)] };
}

/** Several parameters, each with several scopes; what cannot be read is left out, so it grants nothing. */
export function parseScopes(parameters: readonly string[]): AccessEntry[] {
  const byResource = new Map<string, AccessEntry>();
  for (const text of parameters.flatMap((parameter) => parameter.split(/\s+/)).filter((part) => part !== "")) {
    const scope = parseScope(text);
    if (scope === null) continue;
    const key = `${scope.type}:${scope.name}`;
    const known = byResource.get(key);
    byResource.set(key, known ? { ...scope, actions: [...new Set([...known.actions, ...scope.actions])] } : scope);
    if (byResource.size >= MAX_SCOPES) break;
  }
  return [...byResource.values()];
}

export function registryActionsOf(actions: readonly string[]): RegistryAction[] {
  return actions.includes("*") ? [...REGISTRY_ACTIONS] : REGISTRY_ACTIONS.filter((action) => actions.includes(action));
}

/** The bounds of a principal from the access claim of its token. */
export function boundsOf(access: readonly AccessEntry[]): TokenScope[] {
  return access
    .filter((entry) => entry.actions.length > 0)
    .map(({ type, name, actions }) => ({
      name: type === "repository" ? name : `${type}:${name}`,
      actions: registryActionsOf(actions),
    }));
}

export function boundAllows(principal: Principal, bound: typeof CATALOG_BOUND | typeof API_BOUND): boolean {
  return principal.scopes === null || principal.scopes.some((scope) => scope.name === bound);
}
