/** slipway robot: accounts of machines, with a secret that is shown once. */
import type { RobotPermission } from "../auth/roles.ts";
import { SlipwayError } from "../core/errors.ts";
import { parseCall, printTable, requireArgument, requireProjectByName, unknownVerb, WHOLE_LIST } from "./accounts.ts";
import type { AccountServices } from "./accounts.ts";
import { UsageError } from "./command.ts";

export const ROBOT_USAGE = "robot add|list|remove [name] [--project <project>] [--actions pull,push,delete] [--days <days>]";

const DAY_MS = 24 * 3_600_000;
const NAME = /^[a-z0-9]+(?:[._-][a-z0-9]+)*$/;
const ACTIONS: ReadonlySet<string> = new Set(["pull", "push", "delete", "list", "read"]);

export async function runRobot(args: readonly string[], services: AccountServices): Promise<void> {
  const { values, positionals } = parseCall({
    args: [...args],
    allowPositionals: true,
    options: {
      project: { type: "string" },
      actions: { type: "string", default: "pull" },
      days: { type: "string", default: "-1" },
      description: { type: "string", default: "" },
    },
  });
  const [verb, name] = positionals;
  switch (verb) {
    case "add":
      return await addRobot(services, requireArgument(name, "name"), values);
    case "list":
      return await listRobots(services, values.project);
    case "remove":
      return await removeRobot(services, requireArgument(name, "name"));
    default:
      throw unknownVerb(verb);
  }
}

interface AddOptions {
  readonly project?: string | undefined;
  readonly actions: string;
  readonly days: string;
  readonly description: string;
}

/** Without a project the robot works in all of them. */
async function addRobot(services: AccountServices, name: string, options: AddOptions): Promise<void> {
  if (!NAME.test(name)) throw new SlipwayError("BAD_REQUEST", { message: `not a valid robot name: ${name}` });
  const days = Number(options.days);
  if (!Number.isInteger(days) || (days !== -1 && days < 1)) throw new UsageError("--days is a number of days, or -1 for ever");
  const project = options.project === undefined ? null : await requireProjectByName(services, options.project);
  const { robots, robotSecrets, robotPrefix } = services.auth;
  const { secret, hash } = robotSecrets.generate();
  const robot = await robots.create({
    loginName: project === null ? name : `${project.name}+${name}`,
    projectId: project?.id ?? null,
    description: options.description,
    permissions: readPermissions(options.actions, project?.name ?? "*"),
    durationDays: days,
    disabled: false,
    expiresAt: days === -1 ? null : new Date(Date.now() + days * DAY_MS),
    secretHash: hash,
  });
  services.print(`added robot ${robotPrefix}${robot.loginName}`);
  services.print(`secret: ${secret}`);
}

function readPermissions(text: string, namespace: string): RobotPermission[] {
  const actions = text.split(",").map((action) => action.trim());
  const unknown = actions.find((action) => !ACTIONS.has(action));
  if (unknown !== undefined) throw new SlipwayError("BAD_REQUEST", { message: `not an action: ${unknown}` });
  return [{ kind: "project", namespace, access: actions.map((action) => ({ resource: "repository", action })) }];
}

async function listRobots(services: AccountServices, projectName: string | undefined): Promise<void> {
  const project = projectName === undefined ? null : await requireProjectByName(services, projectName);
  const { rows } = await services.auth.robots.list(project?.id ?? null, WHOLE_LIST);
  printTable(services.print, [
    ["ID", "NAME", "STATE", "EXPIRES"],
    ...rows.map((robot) => [
      String(robot.id),
      `${services.auth.robotPrefix}${robot.loginName}`,
      robot.disabled ? "disabled" : "enabled",
      robot.expiresAt?.toISOString() ?? "never",
    ]),
  ]);
}

/** By the name as it is given at login, or without the prefix. */
async function removeRobot(services: AccountServices, name: string): Promise<void> {
  const { robots, robotPrefix } = services.auth;
  const robot = await robots.findByLoginName(name.startsWith(robotPrefix) ? name.slice(robotPrefix.length) : name);
  if (!robot) throw new SlipwayError("NOT_FOUND", { message: `there is no robot ${name}` });
  await robots.remove(robot.id);
  services.print(`removed robot ${robotPrefix}${robot.loginName}`);
}
