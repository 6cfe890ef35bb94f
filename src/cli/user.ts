/** slipway user: accounts of people, from the machine where Slipway runs. */
import { generatePassword, requireAcceptablePassword } from "../auth/passwords.ts";
import type { User } from "../auth/users.ts";
import { SlipwayError } from "../core/errors.ts";
import { parseCall, printTable, requireArgument, unknownVerb, WHOLE_LIST } from "./accounts.ts";
import type { AccountServices } from "./accounts.ts";

export const USER_USAGE =
  "user add|list|password|admin|remove [name] [--admin] [--email <address>] [--realname <name>] [--password-stdin] [--off]";

const NAME = /^[^,~#$%:\s]{1,255}$/;

export async function runUser(args: readonly string[], services: AccountServices): Promise<void> {
  const { values, positionals } = parseCall({
    args: [...args],
    allowPositionals: true,
    options: {
      admin: { type: "boolean", default: false },
      off: { type: "boolean", default: false },
      email: { type: "string", default: "" },
      realname: { type: "string", default: "" },
      "password-stdin": { type: "boolean", default: false },
    },
  });
  const [verb, name] = positionals;
  switch (verb) {
    case "add":
      return await addUser(services, requireArgument(name, "name"), { ...values, fromInput: values["password-stdin"] });
    case "list":
      return await listUsers(services);
    case "password":
      return await changePassword(services, requireArgument(name, "name"), values["password-stdin"]);
    case "admin":
      return await setAdmin(services, requireArgument(name, "name"), !values.off);
    case "remove":
      return await removeUser(services, requireArgument(name, "name"));
    default:
      throw unknownVerb(verb);
  }
}

async function addUser(
  services: AccountServices,
  username: string,
  options: { admin: boolean; email: string; realname: string; fromInput: boolean },
): Promise<void> {
  if (!NAME.test(username)) throw new SlipwayError("BAD_REQUEST", { message: `not a valid user name: ${username}` });
  const { users, passwords } = services.auth;
  const password = await choosePassword(services, options.fromInput);
  await users.create({
    username,
    passwordHash: await passwords.hash(password.text),
    email: options.email,
    realname: options.realname === "" ? username : options.realname,
    comment: "",
    sysadmin: options.admin,
  });
  services.print(`added user ${username}`);
  if (password.generated) services.print(`password: ${password.text}`);
}

async function listUsers(services: AccountServices): Promise<void> {
  const { rows } = await services.auth.users.list(WHOLE_LIST);
  printTable(services.print, [
    ["ID", "NAME", "ADMIN", "EMAIL", "CREATED"],
    ...rows.map((user) => [String(user.id), user.username, user.sysadmin ? "yes" : "", user.email, user.createdAt.toISOString()]),
  ]);
}

async function changePassword(services: AccountServices, username: string, fromInput: boolean): Promise<void> {
  const user = await requireUser(services, username);
  const password = await choosePassword(services, fromInput);
  await services.auth.users.changePassword(user.id, await services.auth.passwords.hash(password.text));
  services.print(`changed the password of ${username}; its tokens have ended`);
  if (password.generated) services.print(`password: ${password.text}`);
}

async function setAdmin(services: AccountServices, username: string, sysadmin: boolean): Promise<void> {
  const user = await requireUser(services, username);
  await services.auth.users.setSysadmin(user.id, sysadmin);
  services.print(`${username} is ${sysadmin ? "" : "no longer "}a system administrator`);
}

async function removeUser(services: AccountServices, username: string): Promise<void> {
  const user = await requireUser(services, username);
  await services.auth.users.remove(user.id);
  services.print(`removed user ${username}`);
}

async function choosePassword(services: AccountServices, fromInput: boolean): Promise<{ text: string; generated: boolean }> {
  if (!fromInput) return { text: generatePassword(), generated: true };
  const text = await services.readLine();
  requireAcceptablePassword(text);
  return { text, generated: false };
}

async function requireUser(services: AccountServices, username: string): Promise<User> {
  const user = await services.auth.users.findByName(username);
  if (user) return user;
  throw new SlipwayError("NOT_FOUND", { message: `there is no user ${username}` });
}
