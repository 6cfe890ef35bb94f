/** What each role may do in a project, in the resource and action names of Harbor. Pure. */
import type { RegistryAction } from "./principal.ts";

export const ROLE_IDS = { projectAdmin: 1, developer: 2, guest: 3, maintainer: 4, limitedGuest: 5 } as const;
export type RoleName = keyof typeof ROLE_IDS;
export type RoleId = (typeof ROLE_IDS)[RoleName];
/** No membership. */
export const NO_ROLE = 0;

const ROLE_NAMES = new Map<number, RoleName>(Object.entries(ROLE_IDS).map(([name, id]) => [id, name as RoleName]));

export function roleName(id: number): RoleName | undefined {
  return ROLE_NAMES.get(id);
}

export function isRoleId(id: number): id is RoleId {
  return ROLE_NAMES.has(id);
}

/** "resource:action". */
export type Right = `${string}:${string}`;

const PUBLIC: readonly Right[] = [
  "project:read",
  "repository:list",
  "repository:pull",
  "artifact:list",
  "artifact:read",
  "tag:list",
  "accessory:list",
];
const LIMITED_GUEST: readonly Right[] = [...PUBLIC, "repository:read", "metadata:list", "metadata:read"];
const GUEST: readonly Right[] = [...LIMITED_GUEST, "member:list", "member:read"];
const DEVELOPER: readonly Right[] = [...GUEST, "repository:push", "repository:update", "artifact:create", "tag:create"];
const MAINTAINER: readonly Right[] = [
  ...DEVELOPER,
  "repository:delete",
  "artifact:delete",
  "tag:delete",
  "accessory:delete",
  "robot:list",
  "robot:read",
];
const PROJECT_ADMIN: readonly Right[] = [
  ...MAINTAINER,
  "project:update",
  "project:delete",
  "quota:read",
  ...(["member", "robot"] as const).flatMap((resource): Right[] => [`${resource}:create`, `${resource}:update`, `${resource}:delete`]),
  ...(["create", "update", "delete"] as const).map((action): Right => `metadata:${action}`),
];

const RIGHTS: ReadonlyMap<number, ReadonlySet<string>> = new Map([
  [NO_ROLE, new Set<string>()],
  [ROLE_IDS.projectAdmin, new Set<string>(PROJECT_ADMIN)],
  [ROLE_IDS.maintainer, new Set<string>(MAINTAINER)],
  [ROLE_IDS.developer, new Set<string>(DEVELOPER)],
  [ROLE_IDS.guest, new Set<string>(GUEST)],
  [ROLE_IDS.limitedGuest, new Set<string>(LIMITED_GUEST)],
]);
const PUBLIC_RIGHTS: ReadonlySet<string> = new Set(PUBLIC);

export function roleAllows(role: number, right: Right): boolean {
  return RIGHTS.get(role)?.has(right) === true;
}

export function publicAllows(right: Right): boolean {
  return PUBLIC_RIGHTS.has(right);
}

/** All rights that a role gives, for clients that ask what they may do. */
export function rightsOf(role: number | "public" | "system"): { readonly resource: string; readonly action: string }[] {
  const rights =
    role === "public" ? PUBLIC_RIGHTS : role === "system" ? (RIGHTS.get(ROLE_IDS.projectAdmin) ?? new Set()) : RIGHTS.get(role);
  return [...(rights ?? [])].map((right) => {
    const [resource = "", action = ""] = right.split(":");
    return { resource, action };
  });
}

/** Any of these rights grants the registry action; roles and robots are judged by the same list. */
export const REGISTRY_RIGHTS: Readonly<Record<RegistryAction, readonly Right[]>> = {
  pull: ["repository:pull"],
  push: ["repository:push"],
  delete: ["artifact:delete", "repository:delete"],
};

// The hot path asks with a role and an action: three bits for each role.
const ACTION_BITS: Readonly<Record<RegistryAction, number>> = { pull: 1, push: 2, delete: 4 };
const ROLE_BITS = [0, 1, 2, 3, 4, 5].map((role) =>
  (["pull", "push", "delete"] as const)
    .filter((action) => REGISTRY_RIGHTS[action].some((right) => roleAllows(role, right)))
    .reduce((bits, action) => bits | ACTION_BITS[action], 0),
);

export function roleAllowsAction(role: number, action: RegistryAction): boolean {
  return ((ROLE_BITS[role] ?? 0) & ACTION_BITS[action]) !== 0;
}

/** What a robot may do: accesses in a namespace, which is a project, "*" for every project, or "/" for the system. */
export interface RobotPermission {
  readonly kind: "project" | "system";
  readonly namespace: string;
  readonly access: readonly RobotAccess[];
}

export interface RobotAccess {
  readonly resource: string;
  readonly action: string;
  readonly effect?: "allow" | "deny" | undefined;
}

/** A null project asks for a right on the system. A denial wins over every grant. */
export function permissionsAllow(permissions: readonly RobotPermission[], project: string | null, rights: readonly Right[]): boolean {
  let allowed = false;
  for (const permission of permissions) {
    const applies =
      project === null
        ? permission.kind === "system"
        : permission.kind === "project" && (permission.namespace === "*" || permission.namespace === project);
    if (!applies) continue;
    for (const { resource, action, effect } of permission.access) {
      if (!rights.some((right) => covers(right, resource, action))) continue;
      if (effect === "deny") return false;
      allowed = true;
    }
  }
  return allowed;
}

function covers(right: Right, resource: string, action: string): boolean {
  const colon = right.indexOf(":");
  return (resource === "*" || right.slice(0, colon) === resource) && (action === "*" || right.slice(colon + 1) === action);
}
