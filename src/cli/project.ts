/** slipway project: projects and their members. */
import { ROLE_IDS } from "../auth/roles.ts";
import type { RoleName } from "../auth/roles.ts";
import { SlipwayError } from "../core/errors.ts";
import { parseCall, printTable, requireArgument, requireProjectByName, unknownVerb, WHOLE_LIST } from "./accounts.ts";
import type { AccountServices } from "./accounts.ts";

export const PROJECT_USAGE =
  "project add|list|remove [name] [--public] [--owner <user>] | project member add|list|remove <project> [user] [--role <role>]";

export async function runProject(args: readonly string[], services: AccountServices): Promise<void> {
  const { values, positionals } = parseCall({
    args: [...args],
    allowPositionals: true,
    options: { public: { type: "boolean", default: false }, owner: { type: "string" }, role: { type: "string", default: "developer" } },
  });
  const [verb, name] = positionals;
  switch (verb) {
    case "add":
      return await addProject(services, requireArgument(name, "name"), values);
    case "list":
      return await listProjects(services);
    case "remove":
      return await removeProject(services, requireArgument(name, "name"));
    case "member":
      return await runMember(services, positionals.slice(1), values.role);
    default:
      throw unknownVerb(verb);
  }
}

async function addProject(
  services: AccountServices,
  name: string,
  options: { public: boolean; owner?: string | undefined },
): Promise<void> {
  const ownerId = options.owner === undefined ? null : await requireUserId(services, options.owner);
  const project = await services.projects.create({ name, public: options.public, ownerId });
  if (ownerId !== null) await services.auth.members.create(project, ownerId, ROLE_IDS.projectAdmin);
  services.print(`added ${options.public ? "public" : "private"} project ${name}`);
}

async function listProjects(services: AccountServices): Promise<void> {
  const { rows } = await services.auth.projectList.list({ visibility: { kind: "all" }, userId: null, query: WHOLE_LIST });
  printTable(services.print, [
    ["ID", "NAME", "VISIBILITY", "OWNER", "REPOSITORIES"],
    ...rows.map((project) => [
      String(project.id),
      project.name,
      project.public ? "public" : "private",
      project.ownerName,
      String(project.repoCount),
    ]),
  ]);
}

async function removeProject(services: AccountServices, name: string): Promise<void> {
  const project = await requireProjectByName(services, name);
  await services.projects.remove(project.id);
  services.print(`removed project ${name}`);
}

async function runMember(services: AccountServices, args: readonly string[], roleText: string): Promise<void> {
  const [verb, projectName, username] = args;
  const project = await requireProjectByName(services, requireArgument(projectName, "project"));
  const { members } = services.auth;
  const { rows } = await members.list(project.id, "", WHOLE_LIST);
  if (verb === "list") {
    printTable(services.print, [["USER", "ROLE"], ...rows.map((member) => [member.username, nameOfRole(member.role)])]);
    return;
  }
  const user = requireArgument(username, "user");
  if (verb === "add") {
    await members.create(project, await requireUserId(services, user), readRole(roleText));
    services.print(`${user} is ${roleText} of ${project.name}`);
  } else if (verb === "remove") {
    const member = rows.find((one) => one.username === user);
    if (!member) throw new SlipwayError("NOT_FOUND", { message: `${user} is not a member of ${project.name}` });
    await members.remove(project, member.id);
    services.print(`${user} is no longer a member of ${project.name}`);
  } else throw unknownVerb(verb);
}

function readRole(text: string): (typeof ROLE_IDS)[RoleName] {
  const entry = Object.entries(ROLE_IDS).find(([name]) => name === text);
  if (entry) return entry[1];
  throw new SlipwayError("BAD_REQUEST", { message: `not a role: ${text}; one of ${Object.keys(ROLE_IDS).join(", ")}` });
}

function nameOfRole(id: number): string {
  return Object.entries(ROLE_IDS).find(([, role]) => role === id)?.[0] ?? String(id);
}

async function requireUserId(services: AccountServices, username: string): Promise<number> {
  const user = await services.auth.users.findByName(username);
  if (user) return user.id;
  throw new SlipwayError("NOT_FOUND", { message: `there is no user ${username}` });
}
