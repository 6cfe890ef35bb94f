/** Who asks, and what may be asked of a project. Shared vocabulary of every API. */
export type RegistryAction = "pull" | "push" | "delete";

export interface TokenScope {
  /** Repository name, or "*" in a token that is an identity only. */
  readonly name: string;
  readonly actions: readonly RegistryAction[];
}

export interface Principal {
  readonly kind: "anonymous" | "user" | "robot";
  /** Stable and unique over kinds: "anonymous", "user:3", "robot:12". Caches and logs use it. */
  readonly key: string;
  readonly id: number;
  readonly name: string;
  readonly sysadmin: boolean;
  /**
   * Upper bound from a bearer token; null means no bound. A scope never grants: the principal's right on the resolved project is needed
   * as well.
   */
  readonly scopes: readonly TokenScope[] | null;
}

export const ANONYMOUS: Principal = { kind: "anonymous", key: "anonymous", id: 0, name: "", sysadmin: false, scopes: null };

export interface RequestOrigin {
  readonly remoteAddress: string;
}

/** What authorization needs to know of a project. */
export interface ProjectIdentity {
  readonly id: number;
  readonly name: string;
  readonly public: boolean;
}

/**
 * What the registry asks of authentication. The peek methods are the hot path: synchronous, from memory, undefined when memory does not
 * know (then the async form is asked).
 */
export interface RegistryAuth {
  peekPrincipal(authorization: string | undefined): Principal | undefined;
  /** Throws UNAUTHORIZED for bad credentials; no header is anonymous. */
  authenticate(authorization: string | undefined, origin: RequestOrigin, signal?: AbortSignal): Promise<Principal>;
  peekDecision(principal: Principal, project: ProjectIdentity, action: RegistryAction): boolean | undefined;
  /** The principal's right on the project, without regard to token scopes. */
  decide(principal: Principal, project: ProjectIdentity, action: RegistryAction, signal?: AbortSignal): Promise<boolean>;
  /** May list all repositories. */
  mayListCatalog(principal: Principal): boolean;
  /** May a push by this principal create the project? */
  mayCreateProject(principal: Principal): boolean;
  readonly mode: "open" | "anonymous-pull" | "required";
}

export function scopeAllows(principal: Principal, repository: string, action: RegistryAction): boolean {
  if (principal.scopes === null) return true;
  return principal.scopes.some((scope) => scope.name === repository && scope.actions.includes(action));
}
