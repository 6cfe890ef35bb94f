/** Who may do what: roles of users, permissions of robots, public projects, and the mode of the registry. */
import { cacheScopes } from "../catalog/registry.ts";
import type { Accounts } from "./accounts.ts";
import { KnownCache } from "./known-cache.ts";
import type { KnownCacheOptions } from "./known-cache.ts";
import type { MemberStore } from "./members.ts";
import type { Principal, ProjectIdentity, RegistryAction } from "./principal.ts";
import { permissionsAllow, publicAllows, REGISTRY_RIGHTS, roleAllows, roleAllowsAction } from "./roles.ts";
import type { Right } from "./roles.ts";
import { API_BOUND, boundAllows, CATALOG_BOUND } from "./scopes.ts";

export type RegistryMode = "open" | "anonymous-pull" | "required";

export interface DecisionsOptions {
  readonly mode: RegistryMode;
  readonly createProjectsOnPush: boolean;
  /** Only system administrators may create projects by REST. */
  readonly projectCreationAdminOnly: boolean;
}

export class Decisions {
  readonly #accounts: Accounts;
  readonly #members: MemberStore;
  readonly #options: DecisionsOptions;
  readonly #roles: KnownCache<number>;

  constructor(accounts: Accounts, members: MemberStore, options: DecisionsOptions & { cache: KnownCacheOptions }) {
    this.#accounts = accounts;
    this.#members = members;
    this.#options = options;
    this.#roles = new KnownCache(options.cache);
  }

  peek(principal: Principal, project: ProjectIdentity, action: RegistryAction): boolean | undefined {
    const general = this.#general(principal, project, action);
    if (general !== undefined) return general;
    const role = this.#roles.peek(roleKey(principal, project));
    return role === undefined ? undefined : roleAllowsAction(role, action);
  }

  async decide(principal: Principal, project: ProjectIdentity, action: RegistryAction): Promise<boolean> {
    const general = this.#general(principal, project, action);
    if (general !== undefined) return general;
    return roleAllowsAction(await this.roleOf(principal, project), action);
  }

  /** The management API's question. A null project asks for a right on the system, which no role gives. */
  async may(principal: Principal, project: ProjectIdentity | null, right: Right): Promise<boolean> {
    if (!boundAllows(principal, API_BOUND)) return false;
    if (principal.sysadmin) return true;
    if (principal.kind === "robot" && this.#robotMay(principal, project?.name ?? null, [right])) return true;
    if (project === null) return false;
    if (project.public && publicAllows(right) && (principal.kind !== "anonymous" || this.#options.mode !== "required")) return true;
    return principal.kind === "user" && roleAllows(await this.roleOf(principal, project), right);
  }

  /** 0 for no membership and for whoever is not a user. */
  async roleOf(principal: Principal, project: ProjectIdentity): Promise<number> {
    if (principal.kind !== "user") return 0;
    const role = await this.#roles.load(roleKey(principal, project), async () => ({
      value: await this.#members.findRole(project.id, principal.id),
      scopes: [cacheScopes.rights(project.name), cacheScopes.principal(principal.key)],
    }));
    return role ?? 0;
  }

  mayListCatalog(principal: Principal): boolean {
    if (this.#options.mode === "open") return true;
    if (!boundAllows(principal, CATALOG_BOUND)) return false;
    return principal.sysadmin || this.#robotMay(principal, null, ["catalog:read"]);
  }

  mayCreateProjectOnPush(principal: Principal): boolean {
    if (!this.#options.createProjectsOnPush) return false;
    return this.#options.mode === "open" || principal.sysadmin || this.#robotMay(principal, null, ["project:create"]);
  }

  mayCreateProject(principal: Principal): boolean {
    if (principal.kind === "anonymous" || !boundAllows(principal, API_BOUND)) return false;
    if (principal.sysadmin) return true;
    if (principal.kind === "robot") return this.#robotMay(principal, null, ["project:create"]);
    return !this.#options.projectCreationAdminOnly;
  }

  stats(): ReturnType<KnownCache<number>["stats"]> {
    return this.#roles.stats();
  }

  close(): void {
    this.#roles.close();
  }

  /** What is decided without knowing a role; undefined when the role matters. */
  #general(principal: Principal, project: ProjectIdentity, action: RegistryAction): boolean | undefined {
    if (this.#options.mode === "open" || principal.sysadmin) return true;
    if (project.public && action === "pull" && (principal.kind !== "anonymous" || this.#options.mode !== "required")) return true;
    if (principal.kind === "anonymous") return false;
    if (principal.kind === "robot") return this.#robotMay(principal, project.name, REGISTRY_RIGHTS[action]);
    return undefined;
  }

  #robotMay(principal: Principal, project: string | null, rights: readonly Right[]): boolean {
    if (principal.kind !== "robot") return false;
    return permissionsAllow(this.#accounts.accountOf(principal)?.permissions ?? [], project, rights);
  }
}

function roleKey(principal: Principal, project: ProjectIdentity): string {
  return `${principal.key}|${project.id}`;
}
